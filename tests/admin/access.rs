//! Who may talk to the admin service, and what is kept of it.

use std::net::IpAddr;

use crate::common::admin::{Admin, TOKEN};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;
use serde_json::json;
use tower_quota::{admin::AdminTokens, request::RequestContext};

fn from_address(request: http::request::Builder, ip: impl Into<IpAddr>) -> Request<Full<Bytes>> {
    let mut request = request.body(Full::default()).unwrap();
    RequestContext::of(request.extensions_mut()).set_client_addr(ip.into());
    request
}

#[tokio::test]
async fn only_a_token_grants_access_and_rejections_are_audited() {
    let admin = Admin::new();
    let request = || Request::get("/admin/keys");
    let rejected = admin.send(request().body(Full::default()).unwrap()).await;
    assert_eq!(rejected.status(), 401);
    assert_eq!(rejected.header("www-authenticate"), "Bearer");
    assert_eq!(rejected.json()["code"], "missing_admin_token");
    let wrong = |from: [u8; 4]| {
        let wrong = request().header("x-admin-token", "a-wrong-admin-token");
        admin.send(from_address(wrong, from))
    };
    for _ in 0..10 {
        let rejected = wrong([192, 0, 2, 7]).await;
        assert_eq!(
            (rejected.status().as_u16(), &rejected.json()["code"]),
            (401, &json!("invalid_admin_token"))
        );
    }
    for _ in 0..50 {
        let rejected = wrong([192, 0, 2, 7]).await;
        assert_eq!(
            (rejected.status().as_u16(), &rejected.json()["code"]),
            (429, &json!("too_many_attempts"))
        );
        let seconds: u64 = rejected.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&seconds));
    }
    let good = request().header("x-admin-token", TOKEN);
    assert_eq!(admin.send(from_address(good, [192, 0, 2, 7])).await.status(), 200);

    let audit = admin.get("/admin/audit?limit=5").await.json();
    assert_eq!(audit["entries"][0]["action"], "admin.refused");
    assert_eq!(audit["entries"][0]["ip"], "192.0.2.7");
    let rest = admin.get(&format!("/admin/audit?before={}", audit["next"])).await.json();
    assert_eq!(rest["entries"].as_array().unwrap().len(), 6, "1 without a token and 10 wrong ones");
}

#[tokio::test]
async fn reads_are_audited_if_configured() {
    let admin = Admin::new();
    let (id, key) = admin.create(r#"{"label":"Alice"}"#).await;
    admin.get("/admin/keys").await;
    let trail = admin.get("/admin/audit?action=admin.").await.json();
    assert_eq!(trail["entries"], json!([]), "off unless it is configured");

    let admin = Admin { service: admin.service.audit_reads(true), store: admin.store };
    for path in
        ["/admin/keys", &format!("/admin/keys/{key}"), "/admin/keys/export", "/admin/status"]
    {
        assert_eq!(admin.get(path).await.status(), 200, "{path}");
    }
    admin.get("/admin/openapi.json").await;
    admin.get("/admin").await;
    let trail = admin.get("/admin/audit?action=admin.read").await;
    let entries = trail.json()["entries"].as_array().unwrap().clone();
    let reported: Vec<_> =
        entries.iter().map(|entry| (&entry["detail"]["call"], &entry["key_id"])).collect();
    assert_eq!(
        reported,
        [
            (&json!("getAudit"), &json!(null)),
            (&json!("getStatus"), &json!(null)),
            (&json!("exportKeys"), &json!(null)),
            (&json!("getKey"), &json!(id)),
            (&json!("listKeys"), &json!(null)),
        ]
    );
    assert!(!trail.text.contains(&key));
}

#[tokio::test]
async fn the_audit_trail_names_the_actor_and_the_change_and_no_secret() {
    let admin = Admin::new();
    let (id, key) = admin.create(r#"{"label":"a"}"#).await;
    let (_, other) = admin.create("").await;
    admin.call("PATCH", &format!("/admin/keys/{key}"), r#"{"label":"b"}"#).await;
    admin.call("POST", &format!("/admin/keys/{key}/rotate"), "").await;
    admin.call("DELETE", &format!("/admin/keys/{id}"), "").await;
    let audit = admin.get(&format!("/admin/audit?key={id}")).await;
    for secret in [&key, &other, TOKEN] {
        assert!(!audit.text.contains(secret));
    }
    let audit = audit.json();
    let actions: Vec<&str> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            assert_eq!(entry["key_id"], *id);
            assert!(entry["detail"].is_object());
            entry["action"].as_str().unwrap()
        })
        .collect();
    assert_eq!(actions, ["key.delete", "key.rotate", "key.update", "key.create"]);
    let mut headers = HeaderMap::new();
    headers.insert("x-admin-token", TOKEN.parse().unwrap());
    let token_id = AdminTokens::parse(TOKEN).unwrap().verify(&headers).unwrap();
    assert_eq!(audit["entries"][0]["token_id"], token_id);
}

#[tokio::test]
async fn wrong_paths_are_404_and_wrong_methods_405() {
    let admin = Admin::new();
    for path in ["/admin/", "/admin"] {
        let page = admin.send(Request::get(path).body(Full::default()).unwrap()).await;
        assert_eq!(page.status(), 200);
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
        assert!(page.text.contains("data-prefix=\"/admin\"") && !page.text.contains("{{"));
    }
    for path in
        ["/admin/nothing", "/admin/keys/", "/admin/keys/a/b", "/admin/keys/%zz", "/administrator"]
    {
        assert_eq!(admin.get(path).await.status(), 404, "{path}");
    }
    for (method, path, allow) in [
        ("PUT", "/admin/keys", "GET, HEAD, POST"),
        ("POST", "/admin/keys/x", "GET, HEAD, PATCH, DELETE"),
        ("GET", "/admin/keys/x/rotate", "POST"),
        ("GET", "/admin/reset-usage", "POST"),
        ("DELETE", "/admin/usage", "GET, HEAD"),
        ("POST", "/admin", "GET, HEAD"),
    ] {
        let response = admin.call(method, path, "").await;
        assert_eq!((response.status().as_u16(), response.header("allow")), (405, allow));
    }
    let head = admin.call("HEAD", "/admin/keys", "").await;
    let length = admin.get("/admin/keys").await.text.len().to_string();
    assert_eq!((head.text.as_str(), head.header("content-length")), ("", length.as_str()));
    let request = Request::get("/admin/nothing").body(Full::default()).unwrap();
    assert_eq!(admin.send(request).await.status(), 401);
}

#[tokio::test]
async fn custom_prefix_and_address_filter_are_enforced() {
    let mut admin = Admin::new();
    admin.service = admin.service.prefix("/ops/").allow(|ip: IpAddr| ip.is_loopback());
    assert_eq!(admin.get("/ops/keys").await.status(), 403);
    let page = from_address(Request::get("/ops"), [127, 0, 0, 1]);
    assert_eq!(admin.send(page).await.status(), 200);
    let described = from_address(Request::get("/ops/openapi.json"), [127, 0, 0, 1]);
    let described = admin.send(described).await;
    assert_eq!(described.status(), 200, "without a token");
    assert!(described.json()["paths"].as_object().unwrap().keys().all(|p| p.starts_with("/ops/")));
    let elsewhere = from_address(Request::get("/ops/openapi.json"), [192, 0, 2, 7]);
    assert_eq!(admin.send(elsewhere).await.status(), 403);
    let trail = Request::get("/ops/audit").header("x-admin-token", TOKEN);
    let trail = admin.send(from_address(trail, [127, 0, 0, 1])).await.json();
    assert_eq!(trail["entries"][0]["ip"], "192.0.2.7");
    assert_eq!(trail["entries"][0]["detail"], json!({"code": "address_not_allowed"}));
}
