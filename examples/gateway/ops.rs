//! `/healthz`, `/readyz` and `/metrics`.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use tower_quota::store::AdminStore;

use crate::server::Draining;

/// How long the store may take for one write.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// What the process knows of its own state.
pub(crate) struct Ops<S> {
    store: S,
    draining: Draining,
    answers: [AtomicU64; 5],
}

impl<S: AdminStore> Ops<S> {
    pub(crate) fn new(store: S, draining: Draining) -> Self {
        Self { store, draining, answers: Default::default() }
    }

    /// Counts an answer.
    pub(crate) fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(answers) = self.answers.get(class) {
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The process lives; nothing else is looked at.
    pub(crate) fn health(&self) -> Response<Bytes> {
        let body = concat!(r#"{"ok":true,"version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
        text(StatusCode::OK, "application/json", body)
    }

    /// Whether requests can be served.
    pub(crate) async fn ready(&self) -> Response<Bytes> {
        let reason = if self.draining.get() {
            r#"{"ok":false,"reason":"shutting down"}"#
        } else if !self.store_is_up().await {
            r#"{"ok":false,"reason":"the store cannot be written"}"#
        } else {
            return text(StatusCode::OK, "application/json", r#"{"ok":true}"#);
        };
        text(StatusCode::SERVICE_UNAVAILABLE, "application/json", reason)
    }

    /// The figures, in Prometheus' text format.
    pub(crate) async fn metrics(&self) -> Response<Bytes> {
        let mut body = String::new();
        let store_up = u8::from(self.store_is_up().await);
        gauge(&mut body, "tower_quota_up", "The process lives.", 1);
        gauge(&mut body, "tower_quota_store_up", "The store can be written.", store_up);
        let name = "tower_quota_http_responses_total";
        let _ = writeln!(body, "# HELP {name} Answers by class of status.");
        let _ = writeln!(body, "# TYPE {name} counter");
        for (class, answers) in (1..).zip(&self.answers) {
            let answers = answers.load(Ordering::Relaxed);
            let _ = writeln!(body, "{name}{{class=\"{class}xx\"}} {answers}");
        }
        text(StatusCode::OK, "text/plain; version=0.0.4", body)
    }

    async fn store_is_up(&self) -> bool {
        let probe = tokio::time::timeout(PROBE_LIMIT, self.store.probe()).await;
        matches!(probe, Ok(Ok(())))
    }
}

fn gauge(body: &mut String, name: &str, help: &str, value: u8) {
    let _ = writeln!(body, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
