//! `/` links to `/usage` for holders who open the gateway's address in a browser, and shows the operator's
//! texts.

use crate::common::{Client, CollectedResponse, Gateway, GatewayCommand};
use http::Method;
use serde_json::json;

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn open(gateway: &Gateway, accept: &str) -> CollectedResponse {
    Client::http1().send(Method::GET, &gateway.url("/"), &[("accept", accept)], "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_a_link_to_usage_and_other_clients_get_404() {
    let gateway = GatewayCommand::new()
        .arg("--demo")
        .env("GATEWAY_NAME", "小明's <Lab> & friends")
        .env("CONTACT", "ops@example.com")
        .env("NOTICE", "Maintenance on \"Sunday\"")
        .start();
    let page = open(&gateway, BROWSER).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    let html = page.text();
    for part in [
        "<h1>小明&#39;s &lt;Lab&gt; &amp; friends</h1>",
        "<p>Maintenance on &quot;Sunday&quot;</p>",
        "<a href=\"mailto:ops@example.com\">",
        "<a href=\"/usage\">",
    ] {
        assert!(html.contains(part), "{part} in {html}");
    }
    assert!(!html.contains("admin") && !html.contains("<script"), "{html}");
    for accept in ["*/*", "application/json", "text/html;q=0.1, application/json"] {
        let other = open(&gateway, accept).await;
        assert_eq!((other.status.as_u16(), other.code().as_str()), (404, "not_found"), "{accept}");
    }
    let post = Client::http1().send(Method::POST, &gateway.url("/"), &[], "").await;
    assert_eq!((post.status.as_u16(), post.header("allow")), (405, "GET, HEAD"));

    let unnamed = open(&Gateway::demo(), BROWSER).await;
    assert_eq!(unnamed.status, 200);
    assert!(!unnamed.text().contains("mailto:"), "{}", unnamed.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_name_the_contact_where_the_holder_needs_help() {
    let gateway = GatewayCommand::new().arg("--demo").env("CONTACT", "ops@example.com").start();
    let key = gateway.create_key(json!({"daily_limit": 1})).await;
    let off = gateway.create_key(json!({})).await;
    gateway.admin(Method::PATCH, &format!("/admin/keys/{off}"), &json!({"disabled": true})).await;
    let chat = gateway.url("/v1/chat/completions");
    let messages = gateway.url("/v1/messages");
    let question = json!({"model": "m", "messages": []});
    let client = Client::http1();
    assert_eq!(client.post_as(&key, &chat, &question).await.status, 200);
    for (key, url, code) in [
        (&*key, &chat, "insufficient_quota"),
        (&key, &messages, "insufficient_quota"),
        (&off, &chat, "key_disabled"),
        ("trial-key-nobody", &chat, "invalid_api_key"),
    ] {
        let rejected = client.post_as(key, url, &question).await;
        let message = rejected.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(rejected.code(), code);
        assert!(message.ends_with(" Contact: ops@example.com"), "{code}: {message}");
    }
    let unknown = client.get(&gateway.url("/nothing")).await;
    assert!(!unknown.text().contains("ops@example.com"));
    let wrong = client.get_as("wrong-token-0123456789", &gateway.url("/admin/keys")).await;
    assert!(!wrong.text().contains("ops@example.com"), "{}", wrong.text());
}
