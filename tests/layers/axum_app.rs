//! The example of an axum app: keys that operators issue at their own path count from then on.

#[path = "../../examples/axum.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not run here")]
mod example;

use axum::{Router, body::Body};
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use tower_quota::admin::AdminTokens;

use crate::zone::memory_store;

async fn ask(app: &Router, method: &str, path: &str, key: &str, body: &str) -> Response<String> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("authorization", format!("Bearer {key}"));
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let (head, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn operators_issue_keys_beside_the_apps_own_routes() {
    let (tokens, token) = AdminTokens::generate();
    let app = example::app(memory_store(), tokens);
    let made = ask(&app, "POST", "/operators/keys", &token, r#"{"daily_limit":2}"#).await;
    assert_eq!(made.status(), 201, "{}", made.body());
    let made: Value = serde_json::from_str(made.body()).unwrap();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());

    let first = ask(&app, "GET", "/hello", key, "").await;
    assert_eq!((first.status().as_u16(), &**first.body()), (200, &*format!("hello {id}\n")));
    let statuses =
        [ask(&app, "GET", "/hello", key, "").await, ask(&app, "GET", "/hello", key, "").await];
    assert_eq!(statuses.map(|response| response.status().as_u16()), [200, 429]);
    assert_eq!(ask(&app, "GET", "/hello", &token, "").await.status(), 401);
    assert_eq!(ask(&app, "GET", "/operators/keys", key, "").await.status(), 401);

    let listed = ask(&app, "GET", "/operators/keys", &token, "").await;
    assert!(listed.body().contains(r#""used_today":2"#), "{}", listed.body());
    let page = ask(&app, "GET", "/operators", "", "").await;
    assert!(page.body().contains(r#"data-prefix="/operators""#));
    let document = ask(&app, "GET", "/operators/openapi.json", "", "").await;
    assert!(document.body().contains("/operators/keys/{ref}"), "{}", document.body());
}
