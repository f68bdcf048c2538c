//! A claim's link gives its key once, to the first client that opens it.

use crate::common::admin::{Admin, CollectedResponse, text};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_quota::{
    admin::claim_service,
    key::SecretKey,
    store::{KeyStore, memory::MemoryStore},
};

async fn ask(store: &MemoryStore, method: Method, body: impl ToString) -> CollectedResponse {
    let service = claim_service(store.clone()).base_url("https://gateway.example/v1");
    let request = Request::builder().method(method).uri("/claim");
    let request = request.body(Full::<Bytes>::from(body.to_string())).unwrap();
    let (head, body) = service.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    CollectedResponse { head, text: String::from_utf8(body.to_vec()).unwrap() }
}

async fn post(store: &MemoryStore, body: Value) -> CollectedResponse {
    ask(store, Method::POST, body).await
}

async fn works(admin: &Admin, key: &str) -> bool {
    admin.store.find(&SecretKey::parse(key).unwrap()).await.unwrap().is_some()
}

/// Makes a claim, and returns its token.
async fn claim(admin: &Admin, id: &str, body: &str) -> String {
    let made = admin.call("POST", &format!("/admin/keys/{id}/claim"), body).await;
    assert_eq!(made.status(), 201, "{}", made.text);
    let url = text(&made.json()["url"]);
    url.strip_prefix("/claim#").expect("a link").to_owned()
}

#[tokio::test]
async fn a_claim_link_describes_its_key_and_reveals_it_once() {
    let admin = Admin::new();
    let (id, first) = admin.create(r#"{"label":"Alice","daily_limit":5}"#).await;
    let token = claim(&admin, &id, "").await;
    for _ in 0..2 {
        let seen = post(&admin.store, json!({"token": token})).await;
        assert_eq!((seen.status().as_u16(), seen.header("cache-control")), (200, "no-store"));
        let seen = seen.json();
        assert_eq!((&seen["state"], &seen["label"]), (&json!("open"), &json!("Alice")));
        assert_eq!((&seen["daily_limit"], &seen["key"]), (&json!(5), &Value::Null));
    }
    assert!(works(&admin, &first).await, "looking takes nothing");

    let given = post(&admin.store, json!({"token": token, "open": true})).await.json();
    let key = text(&given["key"]);
    assert!(key.starts_with("trial-Alice-"), "{key}");
    assert_eq!(
        (&given["id"], &given["base_url"]),
        (&json!(id), &json!("https://gateway.example/v1"))
    );
    assert!(works(&admin, &key).await && !works(&admin, &first).await);
    for open in [true, false] {
        let late = post(&admin.store, json!({"token": token, "open": open})).await;
        assert_eq!((late.status().as_u16(), &late.json()["code"]), (410, &json!("claim_opened")));
    }
    let listed = admin.get(&format!("/admin/keys/{id}")).await.json();
    assert!(listed["claim"]["opened_at"].is_string(), "{listed}");
    let trail = admin.get("/admin/audit").await.text;
    assert!(trail.contains("key.claim.open") && !trail.contains(&token) && !trail.contains(&key));
}

#[tokio::test]
async fn an_unusable_claim_link_says_why() {
    let admin = Admin::new();
    let (id, key) = admin.create("").await;
    let replaced = claim(&admin, &id, "").await;
    let rotated = claim(&admin, &id, r#"{"expires_in_seconds":60}"#).await;
    let rotate = admin.call("POST", &format!("/admin/keys/{id}/rotate"), "").await;
    assert_eq!(rotate.status(), 200);
    for token in [replaced, rotated] {
        let gone = post(&admin.store, json!({"token": token, "open": true})).await;
        assert_eq!(
            (gone.status().as_u16(), &gone.json()["code"]),
            (410, &json!("claim_withdrawn"))
        );
    }
    for unknown in ["", "x", "0123456789abcdefghijkl", &key] {
        let unknown = post(&admin.store, json!({"token": unknown})).await;
        assert_eq!(
            (unknown.status().as_u16(), &unknown.json()["code"]),
            (404, &json!("claim_not_found"))
        );
    }
    assert_eq!(post(&admin.store, json!({"token": 5})).await.status(), 400);
    assert_eq!(post(&admin.store, json!({})).await.status(), 400);
    assert_eq!(ask(&admin.store, Method::DELETE, "").await.status(), 405);
    for bad in ["59", "2592001", "\"60\""] {
        let body = format!(r#"{{"expires_in_seconds":{bad}}}"#);
        let rejected = admin.call("POST", &format!("/admin/keys/{id}/claim"), &body).await;
        assert_eq!(rejected.status(), 400, "{bad}");
    }
}

#[tokio::test]
async fn a_withdrawn_claim_link_stays_withdrawn() {
    let admin = Admin::new();
    for (off, on) in [
        (r#"{"disabled":true}"#, r#"{"disabled":false}"#),
        (r#"{"expires_at":"2020-01-01"}"#, r#"{"expires_at":null}"#),
    ] {
        let (id, _) = admin.create("").await;
        let path = format!("/admin/keys/{id}");
        let token = claim(&admin, &id, "").await;
        assert_eq!(admin.call("PATCH", &path, off).await.status(), 200);
        let rejected = admin.call("POST", &format!("{path}/claim"), "").await;
        assert_eq!(
            (rejected.status().as_u16(), &rejected.json()["code"]),
            (409, &json!("key_not_active"))
        );
        let back = admin.call("PATCH", &path, on).await;
        assert_eq!((back.status().as_u16(), &back.json()["claim"]), (200, &Value::Null));
        let gone = post(&admin.store, json!({"token": token, "open": true})).await;
        assert_eq!(
            (gone.status().as_u16(), &gone.json()["code"]),
            (410, &json!("claim_withdrawn"))
        );
        claim(&admin, &id, "").await;
    }
}
