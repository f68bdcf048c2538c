//! `/healthz`, `/readyz` and `/metrics`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use metrics_exporter_prometheus::PrometheusHandle;
use tower_quota::{admin::store::AdminStore, server::Shutdown};

use crate::{
    logging::BackgroundWriter,
    route::Route,
    telemetry::{self, Responses},
};

/// Maximum time of a call to the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// The state of the process, for monitoring.
pub(crate) struct Ops<S> {
    store: S,
    shutdown: Shutdown,
    responses: Responses,
    metrics: PrometheusHandle,
    log: BackgroundWriter,
}

impl<S: AdminStore> Ops<S> {
    pub(crate) fn new(
        store: S,
        shutdown: Shutdown,
        metrics: PrometheusHandle,
        log: BackgroundWriter,
    ) -> Self {
        Self { store, shutdown, responses: Responses::new(), metrics, log }
    }

    /// Counts a response.
    pub(crate) fn count(&self, route: Option<Route>, status: StatusCode) {
        self.responses.count(route, status);
    }

    /// Reports whether the process must be restarted. Temporary errors do not count.
    pub(crate) fn health(&self) -> Response<Bytes> {
        health(self.store.is_alive())
    }

    /// Reports whether requests can be served.
    pub(crate) async fn ready(&self) -> Response<Bytes> {
        if self.shutdown.is_draining() {
            not_ready("shutting down")
        } else if !self.store_is_up().await {
            not_ready("the store cannot be written")
        } else {
            text(StatusCode::OK, "application/json", r#"{"ok":true}"#)
        }
    }

    /// Renders the metrics in Prometheus' text format.
    pub(crate) async fn metrics(&self) -> Response<Bytes> {
        let (is_up, gauges) = tokio::join!(
            self.store_is_up(),
            tokio::time::timeout(STORE_TIMEOUT, self.store.set_gauges())
        );
        telemetry::set_store_up(is_up);
        telemetry::set_log_lines_dropped(self.log.dropped_lines());
        // The other metrics are useful, above all while the store is down.
        if !matches!(gauges, Ok(Ok(()))) {
            tracing::warn!(source = ?gauges, "updating gauges failed: some are out of date");
        }
        text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render())
    }

    async fn store_is_up(&self) -> bool {
        let probe = tokio::time::timeout(STORE_TIMEOUT, self.store.probe()).await;
        matches!(probe, Ok(Ok(())))
    }
}

/// Returns the response of `/healthz`.
pub(crate) fn health(store_is_alive: bool) -> Response<Bytes> {
    if store_is_alive {
        let body = concat!(r#"{"ok":true,"version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
        return text(StatusCode::OK, "application/json", body);
    }
    let body = concat!(
        r#"{"ok":false,"reason":"a thread of the store has ended: restart the gateway","version":""#,
        env!("CARGO_PKG_VERSION"),
        r#""}"#
    );
    text(StatusCode::SERVICE_UNAVAILABLE, "application/json", body)
}

/// Returns the response of `/readyz` while requests cannot be served.
pub(crate) fn not_ready(reason: &str) -> Response<Bytes> {
    let body = format!(r#"{{"ok":false,"reason":"{reason}"}}"#);
    text(StatusCode::SERVICE_UNAVAILABLE, "application/json", body)
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_store_that_needs_a_restart_is_unhealthy() {
        let healthy = health(true);
        assert_eq!(healthy.status(), 200);
        assert!(healthy.body().starts_with(br#"{"ok":true,"#));
        let dead = health(false);
        assert_eq!(dead.status(), 503);
        assert!(dead.body().starts_with(br#"{"ok":false,"#));
    }
}
