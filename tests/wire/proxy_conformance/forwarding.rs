//! What is said about the client is believed from trusted proxies only.

use http::Request;
use hyper::body::Incoming;
use serde_json::json;
use tower::ServiceExt;
use tower_quota::request::RequestContext;

use super::{
    common::GatewayCommand,
    gateway::{gateway, proxy, serve},
    message::{Message, PAIRS, PROTOCOLS, Protocol, exchange},
    upstream::Upstream,
};

const FORWARDING: [(&str, &str); 8] = [
    ("forwarded", "for=192.0.2.7"),
    ("x-forwarded-for", "192.0.2.7"),
    ("x-forwarded-host", "192.0.2.7"),
    ("x-forwarded-proto", "192.0.2.7"),
    ("x-real-ip", "192.0.2.7"),
    ("cf-connecting-ip", "192.0.2.7"),
    ("true-client-ip", "192.0.2.7"),
    ("via", "1.1 192.0.2.7"),
];

#[tokio::test]
async fn forwarding_headers_of_an_untrusted_peer_are_removed() {
    for (client, server) in PAIRS {
        let mut upstream = Upstream::responding(server, Message::new("200")).await;
        let gateway = gateway(&upstream.url).await;
        exchange(client, &gateway, &Message::new("GET /v1/x").headers(&FORWARDING)).await;
        let seen = upstream.seen().await;
        assert!(!format!("{seen:?}").contains("192.0.2.7"), "{seen:?}");
    }
}

#[tokio::test]
async fn forwarding_headers_of_a_trusted_peer_are_kept_and_extended() {
    for (client, server) in PAIRS {
        let mut upstream = Upstream::responding(server, Message::new("200")).await;
        let trusting = proxy(&upstream.url).map_request(|mut request: Request<Incoming>| {
            RequestContext::of(request.extensions_mut()).set_trusted_peer([10, 0, 0, 1].into());
            request
        });
        let gateway = serve(trusting).await;
        exchange(client, &gateway, &Message::new("GET /v1/x").headers(&FORWARDING)).await;
        let seen = upstream.seen().await;
        assert_eq!(seen.all("x-forwarded-for"), ["192.0.2.7", "10.0.0.1"]);
        for (name, value) in FORWARDING.iter().filter(|(name, _)| *name != "x-forwarded-for") {
            assert_eq!(seen.one(name), *value, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trusted_proxies_are_those_of_the_setting() {
    for (setting, expected) in
        [("127.0.0.0/8", &["192.0.2.7", "127.0.0.1"][..]), ("10.0.0.0/8", &[][..])]
    {
        let mut upstream = Upstream::responding(Protocol::Http1, Message::new("200")).await;
        let gateway = GatewayCommand::new()
            .env("UPSTREAM_BASE_URL", format!("{}/v1", upstream.url))
            .env("TRUSTED_PROXIES", setting)
            .start();
        let key = gateway.create_key(json!({})).await;
        for client in PROTOCOLS {
            let request = Message::new("GET /v1/x")
                .header("authorization", &format!("Bearer {key}"))
                .header("x-forwarded-for", "192.0.2.7");
            exchange(client, &gateway.url(""), &request).await;
            assert_eq!(upstream.seen().await.all("x-forwarded-for"), expected, "{setting}");
        }
    }
}
