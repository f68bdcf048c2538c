//! The client's address behind trusted proxies, and the attempts that a source has.

use crate::common::{ADMIN_TOKEN, Client, CollectedResponse, Gateway, GatewayCommand};
use http::Method;
use serde_json::{Value, json};

const METRICS_TOKEN: &str = "metrics-token-0123456789";

/// Sends a request with the admin token, through a proxy on this machine that sends these headers.
async fn ask(gateway: &Gateway, headers: &[(&str, &str)]) -> CollectedResponse {
    let token = format!("Bearer {ADMIN_TOKEN}");
    let mut all = vec![("authorization", token.as_str())];
    all.extend(headers);
    Client::http1().send(Method::GET, &gateway.url("/admin/keys"), &all, "").await
}

/// Returns the newest entry of the audit trail.
async fn newest(gateway: &Gateway) -> Value {
    let token = format!("Bearer {ADMIN_TOKEN}");
    let headers = [("authorization", token.as_str()), ("x-forwarded-for", "127.0.0.7")];
    let url = gateway.url("/admin/audit?limit=1");
    Client::http1().send(Method::GET, &url, &headers, "").await.json()["entries"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_valid_address_is_on_no_allow_list() {
    let gateway = GatewayCommand::new()
        .arg("--demo")
        .env("TRUSTED_PROXIES", "127.0.0.0/8")
        .env("ADMIN_ALLOW", "127.0.0.0/8")
        .start();
    for hop in ["198.51.100.7:4711", "[2001:db8::1]:443", "198.51.100.7", "2001:db8::1"] {
        let rejected = ask(&gateway, &[("x-forwarded-for", hop)]).await;
        assert_eq!(
            (rejected.status.as_u16(), rejected.code().as_str()),
            (403, "address_not_allowed"),
            "{hop}"
        );
        let ip = newest(&gateway).await["ip"].as_str().unwrap().to_owned();
        assert!(hop.contains(&ip), "{hop} is noted as {ip}");
    }
    for hop in [
        "",
        "unknown",
        "_proxy",
        "198.51.100.007",
        "garbage",
        "127.0.0.1 ,",
        "unknown, 127.0.0.1",
        "127.0.0.1:x",
        "\u{ff11}",
    ] {
        let rejected = ask(&gateway, &[("x-forwarded-for", hop)]).await;
        assert_eq!(
            (rejected.status.as_u16(), rejected.code().as_str()),
            (403, "address_not_allowed"),
            "{hop:?}"
        );
        assert_eq!(newest(&gateway).await["ip"], Value::Null, "{hop:?}");
    }
    for headers in [
        vec![],
        vec![("x-forwarded-for", "127.0.0.1:4711")],
        // These two are always ignored.
        vec![("x_forwarded_for", "198.51.100.7")],
        vec![("forwarded", "for=198.51.100.7")],
    ] {
        assert_eq!(ask(&gateway, &headers).await.status, 200, "{headers:?}");
    }
    for headers in [[("x_forwarded_for", "127.0.0.1")], [("forwarded", "for=127.0.0.1")]] {
        let headers = [headers[0], ("x-forwarded-for", "198.51.100.7")];
        assert_eq!(ask(&gateway, &headers).await.status, 403, "{headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_allow_list_an_unknown_client_with_a_token_is_accepted() {
    let gateway = GatewayCommand::new().arg("--demo").env("TRUSTED_PROXIES", "127.0.0.0/8").start();
    assert_eq!(ask(&gateway, &[("x-forwarded-for", "unknown")]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_for_metrics_count_with_those_for_the_admin_api() {
    let gateway = GatewayCommand::new()
        .arg("--demo")
        .env("METRICS_TOKEN", METRICS_TOKEN)
        .env("TRUSTED_PROXIES", "127.0.0.0/8")
        .start();
    let client = Client::http1();
    let from = async |path: &str, token: &str, source: &str| {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str()), ("x-forwarded-for", source)];
        client.send(Method::GET, &gateway.url(path), &headers, "").await
    };
    for attempt in 0..30 {
        let path = if attempt % 2 == 0 { "/metrics" } else { "/admin/keys" };
        let rejected = from(path, "wrong-token-0123456789", "198.51.100.7").await;
        assert_eq!(rejected.status, if attempt < 10 { 401 } else { 429 }, "{attempt}");
        if attempt >= 10 {
            assert_eq!(rejected.code(), "too_many_attempts");
            assert!((1..=60).contains(&rejected.header("retry-after").parse().unwrap()));
        }
    }
    let trail = gateway.admin(Method::GET, "/admin/audit?action=admin.refused", &json!(null)).await;
    let entries = trail["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 10, "{trail}");
    assert!(entries.iter().all(|entry| entry["ip"] == "198.51.100.7"), "{trail}");
    let codes: Vec<&str> =
        entries.iter().map(|entry| entry["detail"]["code"].as_str().unwrap()).collect();
    assert_eq!(&codes[..2], ["invalid_admin_token", "invalid_token"]);
    // A valid token is accepted, whatever its source has tried.
    for token in [METRICS_TOKEN, ADMIN_TOKEN] {
        assert_eq!(from("/metrics", token, "198.51.100.7").await.status, 200);
    }
    // Other sources have their own attempts, and those of no known address share theirs.
    assert_eq!(from("/metrics", "wrong-token-0123456789", "198.51.100.8").await.status, 401);
    for attempt in 0..12 {
        let source = ["unknown", "", "198.51.100.007"][attempt % 3];
        let rejected = from("/metrics", "wrong-token-0123456789", source).await;
        assert_eq!(rejected.status, if attempt < 10 { 401 } else { 429 }, "{attempt}");
    }
}
