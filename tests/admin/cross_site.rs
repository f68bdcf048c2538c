//! Pages of other sites cannot make a reader's browser change anything through the admin API.

use crate::common::{ADMIN_TOKEN, Client, CollectedResponse, Gateway, GatewayCommand};
use http::Method;
use serde_json::json;

/// Issues a key as a client with these headers would.
async fn issue(gateway: &Gateway, headers: &[(&str, &str)]) -> CollectedResponse {
    let token = format!("Bearer {ADMIN_TOKEN}");
    let mut all = vec![("authorization", token.as_str())];
    all.extend(headers);
    Client::http1().send(Method::POST, &gateway.url("/admin/keys"), &all, "{}").await
}

#[tokio::test(flavor = "multi_thread")]
async fn cross_site_forms_are_rejected() {
    let gateway = Gateway::demo();
    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
    for from in [
        [("sec-fetch-site", "cross-site"), ("origin", "https://attacker.example")],
        [("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:1")],
        [("sec-fetch-site", "cross-site"), ("origin", "null")],
        // A browser that does not know `Sec-Fetch-Site`.
        [("origin", "https://attacker.example"), ("referer", "https://attacker.example/")],
    ] {
        let rejected = issue(&gateway, &[from[0], from[1], FORM]).await;
        assert_eq!(rejected.status, 403, "{from:?}");
        assert_eq!(rejected.json()["error"]["code"], "cross_site_request");
        let message = rejected.json()["error"]["message"].as_str().unwrap().to_owned();
        let origin = from.iter().find(|(name, _)| *name == "origin").unwrap().1;
        for value in [origin, &gateway.address().to_string()] {
            assert!(message.contains(&format!("`{value}`")), "{message}");
        }
        assert_eq!(rejected.header("cache-control"), "no-store");
    }
    let list = gateway.admin(Method::GET, "/admin/keys", &json!(null)).await;
    assert_eq!(list["count"], 0);
    let trail = gateway.admin(Method::GET, "/admin/audit?action=admin.refused", &json!(null)).await;
    let entries = trail["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 4, "{trail}");
    assert_eq!(entries[0]["detail"], json!({"code": "cross_site_request"}));
    assert_eq!(entries[0]["ip"], "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn same_origin_and_non_browser_requests_are_accepted() {
    let gateway = Gateway::demo();
    let own = gateway.url("");
    for from in [
        vec![],
        vec![("sec-fetch-site", "same-origin"), ("origin", own.as_str())],
        vec![("sec-fetch-site", "none")],
        vec![("origin", own.as_str())],
    ] {
        assert_eq!(issue(&gateway, &from).await.status, 201, "{from:?}");
    }
    let page = gateway.url("/admin");
    let link = [("sec-fetch-site", "cross-site")];
    let page = Client::http1().send(Method::GET, &page, &link, "").await;
    assert_eq!(page.status, 200, "a link to the page works from anywhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_that_changes_host_the_public_url_is_the_pages_origin() {
    let gateway = GatewayCommand::new()
        .arg("--demo")
        .env("PUBLIC_URL", "https://Keys.Example.com:443/")
        .start();
    // A browser that does not know `Sec-Fetch-Site`, behind nginx's default `Host`.
    let page = ("origin", "https://keys.example.com");
    assert_eq!(issue(&gateway, &[page]).await.status, 201);
    assert_eq!(issue(&gateway, &[page, ("sec-fetch-site", "same-origin")]).await.status, 201);
    for origin in ["http://keys.example.com", "https://keys.example.com.attacker.example", "null"] {
        assert_eq!(issue(&gateway, &[("origin", origin)]).await.status, 403, "{origin}");
    }
}
