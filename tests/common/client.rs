use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use super::DEADLINE;

/// A small HTTP client. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Client(legacy::Client<HttpConnector, Full<Bytes>>);

/// A whole response.
#[derive(Clone, Debug)]
pub(crate) struct CollectedResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    /// Speaks HTTP/1.1.
    pub(crate) fn http1() -> Self {
        Self(legacy::Client::builder(TokioExecutor::new()).build_http())
    }

    /// Speaks HTTP/2 with prior knowledge.
    pub(crate) fn http2() -> Self {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        Self(builder.http2_only(true).build_http())
    }

    /// Sends a request and returns the response as soon as its head is there.
    pub(crate) async fn open(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        tokio::time::timeout(DEADLINE, self.0.request(request)).await.expect("a response in time")
    }

    /// Sends a request and reads the whole response.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> CollectedResponse {
        let response = self.open(method, url, headers, body).await.unwrap();
        let (head, body) = response.into_parts();
        let whole = tokio::time::timeout(DEADLINE, body.collect()).await.expect("an end in time");
        CollectedResponse {
            status: head.status,
            headers: head.headers,
            body: whole.unwrap().to_bytes(),
        }
    }

    /// `GET` with no credential.
    pub(crate) async fn get(&self, url: &str) -> CollectedResponse {
        self.send(Method::GET, url, &[], "").await
    }

    /// `GET` as the holder of a key or token.
    pub(crate) async fn get_as(&self, key: &str, url: &str) -> CollectedResponse {
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str())];
        self.send(Method::GET, url, &headers, "").await
    }

    /// Posts JSON as the holder of a key.
    pub(crate) async fn post_as(&self, key: &str, url: &str, body: &Value) -> CollectedResponse {
        let authorization = format!("Bearer {key}");
        let headers =
            [("authorization", authorization.as_str()), ("content-type", "application/json")];
        self.send(Method::POST, url, &headers, body.to_string()).await
    }
}

impl CollectedResponse {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's text, empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// `code` of the error object, empty if the body is none.
    pub(crate) fn code(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}
