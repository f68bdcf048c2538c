//! Metrics for Prometheus: those of the library and those of the process.

use std::{convert::Infallible, time::Duration};

use http::StatusCode;
use metrics::{Counter, Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tower::BoxError;

use crate::route::Route;

/// Interval at which recorded samples are merged into their histograms, which bounds their memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

const UP: &str = "tower_quota_up";
const STORE_UP: &str = "tower_quota_store_up";
const LOG_LINES_DROPPED: &str = "tower_quota_log_lines_dropped_total";
const RESPONSES: &str = "tower_quota_http_responses_total";

/// Installs the recorder. Metrics that are created before are lost.
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
    describe_gauge!(UP, Unit::Count, "Whether the process is running; always 1.");
    describe_gauge!(STORE_UP, Unit::Count, "Whether the store accepts writes (1) or not (0).");
    describe_counter!(RESPONSES, Unit::Count, "Responses by route and status class.");
    describe_counter!(
        LOG_LINES_DROPPED,
        Unit::Count,
        "Log lines dropped because standard error failed or was too slow."
    );
    gauge!(UP).set(1);
    Ok(handle)
}

/// Merges recorded samples into their histograms, and never completes.
pub(crate) async fn run_upkeep(handle: PrometheusHandle) -> Infallible {
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        handle.run_upkeep();
    }
}

pub(crate) fn set_store_up(is_up: bool) {
    gauge!(STORE_UP).set(u8::from(is_up));
}

pub(crate) fn set_log_lines_dropped(lines: u64) {
    counter!(LOG_LINES_DROPPED).absolute(lines);
}

/// The response counters by route and status class.
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
        let route = ROUTES.iter().position(|(known, _)| *known == route);
        let class = usize::from(status.as_u16() / 100).wrapping_sub(1);
        let counter = route.and_then(|route| self.0[route].get(class));
        if let Some(counter) = counter {
            counter.increment(1);
        }
    }
}
