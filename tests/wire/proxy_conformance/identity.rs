//! The upstream does not learn who the client is, nor the client who the sponsor is.

use super::{
    gateway::{SPONSOR, gateway},
    message::{Message, PAIRS, exchange},
    upstream::Upstream,
};

#[tokio::test]
async fn identity_headers_are_not_forwarded() {
    let identity = [
        ("authorization", "Bearer trial-secret"),
        ("x-trial-key", "trial-secret"),
        ("x-api-key", "trial-secret"),
        ("x-admin-token", "trial-secret"),
        ("api-key", "trial-secret"),
        ("cookie", "session=trial-secret"),
        ("openai-organization", "trial-secret"),
        ("openai-project", "trial-secret"),
        ("proxy-authorization", "Basic trial-secret"),
    ];
    for (client, server) in PAIRS {
        let mut upstream = Upstream::responding(server, Message::new("200")).await;
        let gateway = gateway(&upstream.url).await;
        let request = Message::new("GET /v1/x").headers(&identity).header("x-end", "1");
        exchange(client, &gateway, &request).await;
        let seen = upstream.seen().await;
        assert_eq!(seen.one("authorization"), format!("Bearer {SPONSOR}"));
        assert_eq!(seen.one("x-end"), "1");
        assert!(!format!("{seen:?}").contains("trial-secret"), "{seen:?}");
    }
}

#[tokio::test]
async fn the_sponsors_own_headers_never_reach_a_client() {
    let own = [
        ("set-cookie", "sponsors=1"),
        ("openai-organization", "sponsors"),
        ("openai-project", "sponsors"),
        ("x-ratelimit-limit-requests", "sponsors"),
        ("x-ratelimit-remaining-tokens", "sponsors"),
        ("server", "sponsors"),
        ("via", "1.1 sponsors"),
        ("alt-svc", "h3=\":443\"; sponsors=1"),
        ("location", "/sponsors"),
        ("strict-transport-security", "max-age=1; sponsors"),
    ];
    for (client, server) in PAIRS {
        let response = Message::new("200").headers(&own).header("x-end", "1");
        let upstream = Upstream::responding(server, response).await;
        let gateway = gateway(&upstream.url).await;
        let response = exchange(client, &gateway, &Message::new("GET /v1/x")).await;
        assert_eq!(response.one("x-end"), "1");
        assert!(!format!("{response:?}").contains("sponsors"), "{response:?}");
    }
}

#[tokio::test]
async fn requests_carry_the_host_of_the_upstream() {
    for (client, server) in PAIRS {
        let mut upstream = Upstream::responding(server, Message::new("200")).await;
        let gateway = gateway(&upstream.url).await;
        exchange(client, &gateway, &Message::new("GET /v1/x")).await;
        let seen = upstream.seen().await;
        assert_eq!(seen.host(), upstream.authority());
        assert!(!format!("{seen:?}").contains("gateway.example"), "{seen:?}");
    }
}
