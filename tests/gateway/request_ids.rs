//! What an operator can find out about a request whose response a holder shows them, and about the
//! addresses that use a key.

use crate::common::{ADMIN_TOKEN, Client, Gateway, GatewayCommand, Upstream, eventually, full};
use http::{Method, Response};
use serde_json::{Value, json};

async fn find(gateway: &Gateway, id: &str) -> Vec<Value> {
    let path = format!("/admin/requests?request_id={id}");
    let found = gateway.admin(Method::GET, &path, &Value::Null).await;
    found["requests"].as_array().unwrap().clone()
}

/// The one request with this id, once it has ended.
async fn found(gateway: &Gateway, id: &str) -> Value {
    eventually(id, || async { !find(gateway, id).await.is_empty() }).await;
    let mut found = find(gateway, id).await;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Sends a request and returns the id in its response.
async fn send(gateway: &Gateway, method: Method, path: &str, headers: &[(&str, &str)]) -> String {
    let body = if method == Method::POST { "{}" } else { "" };
    let response = Client::http1().send(method, &gateway.url(path), headers, body).await;
    response.header("x-request-id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_request_without_a_known_key_is_found_by_its_id() {
    let gateway = GatewayCommand::new().arg("--demo").start();
    const KEY: &str = "trial-alice-20261122-x7QpFt3mZkSecretSecret";
    let bearer = format!("Bearer {KEY}");
    for (method, path, headers, expected) in [
        (
            Method::POST,
            "/v1/chat/completions",
            vec![("authorization", &*bearer)],
            json!({"status": 401, "code": "invalid_api_key", "key": "trial-alic…",
                   "method": "POST", "path": "/v1/chat/completions"}),
        ),
        (
            Method::POST,
            "/v1/messages",
            vec![("x-api-key", "hand-made")],
            json!({"status": 401, "code": "invalid_api_key", "key": "…"}),
        ),
        (Method::GET, "/v1/x", vec![], json!({"status": 401, "code": "missing_api_key"})),
        (Method::GET, "/nowhere", vec![], json!({"status": 404, "code": "not_found"})),
        (Method::DELETE, "/usage", vec![], json!({"status": 405, "code": "method_not_allowed"})),
        (
            Method::GET,
            "/admin/keys",
            vec![("authorization", "Bearer wrong-admin-token-0123456789")],
            json!({"status": 401, "key": "wrong-admi…", "path": "/admin/keys"}),
        ),
    ] {
        let id = send(&gateway, method, path, &headers).await;
        let found = found(&gateway, &id).await;
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&found[field], value, "{field} of {found}");
        }
        assert_eq!(found["request_id"], id);
        assert_eq!(found["outcome"], "rejected");
        assert_eq!(found["client_addr"], "127.0.0.1");
        assert_eq!((&found["id"], &found["number"]), (&Value::Null, &Value::Null));
        assert!(found["at"].is_string());
        assert!(!found.to_string().contains("Secret"), "{found}");
    }
    let id = send(&gateway, Method::GET, "/v1/x", &[("x-request-id", "my-own-id")]).await;
    assert_eq!(id, "my-own-id");
    assert_eq!(found(&gateway, "my-own-id").await["code"], "missing_api_key");
    assert!(find(&gateway, "another").await.is_empty());
    let headers = [("authorization", &*format!("Bearer {ADMIN_TOKEN}"))];
    for bad in ["", "%20", "%e4%bd%a0", &"x".repeat(129)] {
        let url = gateway.url(&format!("/admin/requests?request_id={bad}"));
        let response = Client::http1().send(Method::GET, &url, &headers, "").await;
        assert_eq!(response.status, 400, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_found_by_the_id_that_the_upstream_has_given_it() {
    let upstream = Upstream::start(|_| {
        Response::builder().header("x-request-id", "req_upstream").body(full("{}")).unwrap()
    })
    .await;
    let gateway =
        GatewayCommand::before(upstream.base_url()).env("USAGE_RETENTION_DAYS", "7").start();
    let made = gateway.admin(Method::POST, "/admin/keys", &json!({})).await;
    let key = format!("Bearer {}", made["key"].as_str().unwrap());
    let headers = [("authorization", key.as_str())];
    let shown = send(&gateway, Method::POST, "/v1/chat/completions", &headers).await;
    assert_eq!(shown, "req_upstream", "the holder sees the upstream's");
    assert_eq!(found(&gateway, &shown).await["id"], made["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_found_by_the_id_of_its_response() {
    let mut gateway = GatewayCommand::new().arg("--demo").env("USAGE_RETENTION_DAYS", "7").start();
    let made = gateway.admin(Method::POST, "/admin/keys", &json!({"daily_limit": 2})).await;
    let key = format!("Bearer {}", made["key"].as_str().unwrap());
    let headers = [("authorization", key.as_str())];
    let good = send(&gateway, Method::POST, "/v1/chat/completions", &headers).await;
    let named = [headers[0], ("x-request-id", "twice")];
    send(&gateway, Method::POST, "/v1/chat/completions", &named).await;
    send(&gateway, Method::POST, "/v1/chat/completions", &named).await;
    let good = async |gateway: &Gateway| {
        let found = found(gateway, &good).await;
        assert_eq!((&found["id"], &found["request_id"]), (&made["id"], &json!(good)), "{found}");
        assert_eq!((&found["status"], found.get("key")), (&json!(200), None), "{found}");
    };
    good(&gateway).await;
    let codes = |rows: &[Value]| rows.iter().map(|row| row["code"].clone()).collect::<Vec<_>>();
    let expected = [json!("insufficient_quota"), Value::Null];
    eventually("both", || async { codes(&find(&gateway, "twice").await) == expected }).await;
    gateway.restart();
    good(&gateway).await;
    assert_eq!(codes(&find(&gateway, "twice").await), expected);
    let page =
        format!("/admin/requests?request_id=twice&key={}&limit=1", made["id"].as_str().unwrap());
    let page = gateway.admin(Method::GET, &page, &Value::Null).await;
    assert_eq!(page["requests"].as_array().unwrap().len(), 1, "{page}");
    let next = format!("/admin/requests?request_id=twice&limit=1&before={}", page["next"]);
    let page = gateway.admin(Method::GET, &next, &Value::Null).await;
    assert_eq!(codes(page["requests"].as_array().unwrap()), [Value::Null]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_in_anthropics_form_is_one_in_the_ledger() {
    let gateway = GatewayCommand::new().arg("--demo").start();
    let key = gateway.create_key(json!({"daily_limit": 1})).await;
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str())];
    let url = gateway.url("/v1/messages");
    for _ in 0..3 {
        Client::http1().send(Method::POST, &url, &headers, "{}").await;
    }
    let report = || gateway.admin(Method::GET, "/admin/usage", &Value::Null);
    eventually("its rejections", || async { report().await["items"][0]["rejected"] == 2 }).await;
    assert_eq!(report().await["items"][0]["requests"], 1);
}

/// A gateway that trusts its peer, which is this test.
fn behind_a_proxy() -> GatewayCommand {
    GatewayCommand::new()
        .arg("--demo")
        .env("TRUSTED_PROXIES", "127.0.0.1")
        .env("RUST_LOG", "info")
        .env("LOG_FORMAT", "json")
}

async fn ask_from(gateway: &Gateway, key: &str, addr: &str) {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("x-forwarded-for", addr)];
    let url = gateway.url("/v1/chat/completions");
    let response = Client::http1().send(Method::POST, &url, &headers, "{}").await;
    assert_eq!(response.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_addresses_that_use_a_key_are_counted_and_logged() {
    let gateway = behind_a_proxy().start();
    let made = gateway.admin(Method::POST, "/admin/keys", &json!({})).await;
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let path = format!("/admin/keys/{id}");
    let count =
        async || gateway.admin(Method::GET, &path, &Value::Null).await["addresses_24h"].clone();
    assert_eq!(count().await, 0);
    for addr in ["192.0.2.1", "192.0.2.2", "192.0.2.1", "2001:db8::1", "2001:db8::2"] {
        ask_from(&gateway, key, addr).await;
    }
    eventually("the addresses", || async { count().await == 3 }).await;
    let listed = gateway.admin(Method::GET, "/admin/keys", &Value::Null).await;
    assert_eq!(listed["keys"][0]["addresses_24h"], 3);
    let reported = || gateway.printed().contains(r#""client_addr":"192.0.2.2""#);
    eventually("the log", || async { reported() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_address_is_recorded_or_logged_if_that_is_off() {
    let gateway = behind_a_proxy().env("LOG_CLIENT_ADDR", "off").start();
    let made = gateway.admin(Method::POST, "/admin/keys", &json!({})).await;
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    ask_from(&gateway, key, "192.0.2.1").await;
    let headers = [("x-forwarded-for", "192.0.2.1")];
    let rejected = send(&gateway, Method::GET, "/v1/x", &headers).await;
    let found = found(&gateway, &rejected).await;
    assert_eq!((&found["code"], found.get("client_addr")), (&json!("missing_api_key"), None));
    let record = gateway.admin(Method::GET, &format!("/admin/keys/{id}"), &Value::Null).await;
    assert_eq!(record["addresses_24h"], Value::Null);
    eventually("the log", || async { gateway.printed().contains(&rejected) }).await;
    let printed = gateway.printed();
    assert!(!printed.contains("192.0.2.1") && !printed.contains("client_addr"), "{printed}");
}
