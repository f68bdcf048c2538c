//! An admin service over a memory store, and calls to it.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::ServiceExt;
use tower_quota::{
    admin::{AdminService, AdminTokens, admin_service},
    store::memory::MemoryStore,
};

use super::memory_store;

pub(crate) const TOKEN: &str = "correct-horse-battery-staple";

pub(crate) struct Admin {
    pub(crate) store: MemoryStore,
    pub(crate) service: AdminService<MemoryStore>,
}

pub(crate) struct CollectedResponse {
    pub(crate) head: http::response::Parts,
    pub(crate) text: String,
}

impl Admin {
    pub(crate) fn new() -> Self {
        let store = memory_store();
        let tokens = AdminTokens::parse(TOKEN).unwrap();
        Self { service: admin_service(store.clone(), tokens), store }
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> CollectedResponse {
        let response: Response<_> = self.service.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        CollectedResponse { head, text: String::from_utf8(body.to_vec()).unwrap() }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> CollectedResponse {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(Full::from(body.to_owned())).unwrap()).await
    }

    /// The same with one more header.
    pub(crate) async fn call_with(
        &self,
        (name, value): (&str, &str),
        method: &str,
        path: &str,
        body: &str,
    ) -> CollectedResponse {
        let request = Request::builder().method(method).uri(path).header(name, value);
        let request = request.header("authorization", format!("Bearer {TOKEN}"));
        self.send(request.body(Full::from(body.to_owned())).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> CollectedResponse {
        self.call("GET", path, "").await
    }

    /// Issues a key; returns its id and text.
    pub(crate) async fn create(&self, body: &str) -> (String, String) {
        let made = self.call("POST", "/admin/keys", body).await;
        assert_eq!(made.status(), 201, "{}", made.text);
        let made = made.json();
        (text(&made["id"]), text(&made["key"]))
    }
}

impl CollectedResponse {
    pub(crate) fn status(&self) -> StatusCode {
        self.head.status
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.head.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}", self.text))
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}
