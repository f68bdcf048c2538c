//! The figures for Prometheus: the library's, and what the process knows of itself.

use std::{convert::Infallible, time::Duration};

use http::StatusCode;
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tower::BoxError;

use crate::route::Route;

/// What histograms have recorded is summed up this often, so that it takes no more room.
const UPKEEP: Duration = Duration::from_secs(5);

const UP: &str = "tower_quota_up";
const STORE_UP: &str = "tower_quota_store_up";
const CONNECTIONS: &str = "tower_quota_connections";
const LOG_LINES_DROPPED: &str = "tower_quota_log_lines_dropped_total";
const RESPONSES: &str = "tower_quota_http_responses_total";

/// Installs the recorder. Whatever tells figures must be made after that.
pub(crate) fn start() -> Result<PrometheusHandle, BoxError> {
    let mut builder = PrometheusBuilder::new();
    for metric in tower_quota::metrics::ALL {
        if let Some(buckets) = metric.buckets() {
            let name = Matcher::Full(metric.name().to_owned());
            builder = builder.set_buckets_for_metric(name, buckets)?;
        }
    }
    let handle = builder.install_recorder()?;
    tower_quota::metrics::describe();
    describe_gauge!(UP, Unit::Count, "The process lives.");
    describe_gauge!(STORE_UP, Unit::Count, "The store can be written.");
    describe_gauge!(CONNECTIONS, Unit::Count, "Connections of clients that are open.");
    describe_counter!(RESPONSES, Unit::Count, "Answers by route and class of status.");
    describe_counter!(
        LOG_LINES_DROPPED,
        Unit::Count,
        "Log lines that standard error did not take, or not in time."
    );
    gauge!(UP).set(1);
    Ok(handle)
}

/// Sums up what histograms have recorded, for ever.
pub(crate) async fn keep_up(handle: PrometheusHandle) -> Infallible {
    loop {
        tokio::time::sleep(UPKEEP).await;
        handle.run_upkeep();
    }
}

pub(crate) fn store_is_up(is_up: bool) {
    gauge!(STORE_UP).set(u8::from(is_up));
}

pub(crate) fn log_lines_dropped(lines: u64) {
    counter!(LOG_LINES_DROPPED).absolute(lines);
}

/// Answers by route and class of status.
pub(crate) struct Responses([[Counter; CLASSES.len()]; ROUTES.len()]);

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const ROUTES: [(Option<Route>, &str); 10] = [
    (Some(Route::Upstream), "upstream"),
    (Some(Route::Models), "models"),
    (Some(Route::Usage), "usage"),
    (Some(Route::Admin), "admin"),
    (Some(Route::Claim), "claim"),
    (Some(Route::Metrics), "metrics"),
    (Some(Route::Health), "health"),
    (Some(Route::Ready), "ready"),
    (Some(Route::Home), "home"),
    (None, "none"),
];

impl Responses {
    pub(crate) fn new() -> Self {
        Self(ROUTES.map(|(_, route)| {
            CLASSES.map(|class| counter!(RESPONSES, "route" => route, "class" => class))
        }))
    }

    pub(crate) fn count(&self, route: Option<Route>, status: StatusCode) {
        let place = ROUTES.iter().position(|(known, _)| *known == route);
        let class = usize::from(status.as_u16() / 100).wrapping_sub(1);
        let counter = place.and_then(|place| self.0[place].get(class));
        if let Some(counter) = counter {
            counter.increment(1);
        }
    }
}

/// Connections that are open.
#[derive(Clone)]
pub(crate) struct Connections(Gauge);

/// One of them, as long as this lives.
pub(crate) struct Connection(Gauge);

impl Connections {
    pub(crate) fn new() -> Self {
        Self(gauge!(CONNECTIONS))
    }

    pub(crate) fn enter(&self) -> Connection {
        self.0.increment(1);
        Connection(self.0.clone())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
