//! Every metric of the library: its name, type, unit and meaning.

use std::fmt;

#[cfg(feature = "metrics")]
use ::metrics::Unit;

/// The unit of a metric, which nothing reads without the feature `metrics`.
#[cfg(not(feature = "metrics"))]
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Bytes,
    Count,
    Seconds,
}

/// A metric: its name, type, unit and help text.
#[derive(Clone, Copy)]
pub struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    pub(super) help: &'static str,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

impl Metric {
    /// Returns the metric's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns one sentence on what the metric counts.
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// Returns suitable upper bounds of the buckets if the metric is a histogram.
    pub fn buckets(&self) -> Option<&'static [f64]> {
        match self.kind {
            Kind::Histogram(buckets) => Some(buckets),
            _ => None,
        }
    }
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metric").field("name", &self.name).field("unit", &self.unit).finish()
    }
}

/// Buckets for durations of requests: OpenTelemetry's for operations of generative AI, and one more
/// for durations beyond the gateway's own timeouts.
const REQUEST_DURATION: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84,
];
/// OpenTelemetry's buckets for the time to the first token.
const FIRST_BYTE: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Buckets for durations of disk writes.
const WRITE_DURATION: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// Buckets for numbers of journal records.
const RECORDS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0];

/// Declares a constant for each metric, and one for all of them.
macro_rules! metrics {
    ($($constant:ident: $kind:ident $(($buckets:ident))?, $unit:ident, $name:literal, $help:literal;)*) => {
        $(
            pub(crate) const $constant: Metric = Metric {
                name: $name,
                kind: Kind::$kind $(($buckets))?,
                unit: Unit::$unit,
                help: $help,
            };
        )*
        /// All metrics of the library.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    REQUESTS: Counter, Count, "tower_quota_requests_total",
        "Requests that have ended, by outcome and reason.";
    IN_FLIGHT: Gauge, Count, "tower_quota_requests_in_flight",
        "Requests in flight.";
    UNITS_CHARGED: Counter, Count, "tower_quota_units_charged_total",
        "Quota units charged, less those refunded.";
    UNITS_REFUNDED: Counter, Count, "tower_quota_units_refunded_total",
        "Quota units refunded.";
    SHADOW_REJECTIONS: Counter, Count, "tower_quota_shadow_rejections_total",
        "Requests that a shadow quota passed and would have rejected, by quota and reason.";
    TOKENS: Counter, Count, "tower_quota_tokens_total",
        "Tokens that responses reported, by type and served model.";
    TOKENS_CACHED: Counter, Count, "tower_quota_tokens_cached_total",
        "Cached tokens (subset of prompt tokens).";
    TOKENS_REASONING: Counter, Count, "tower_quota_tokens_reasoning_total",
        "Reasoning tokens (subset of completion tokens).";
    TOKENS_UNKNOWN: Counter, Count, "tower_quota_requests_without_tokens_total",
        "Successful requests whose response reported no tokens.";
    BYTES_IN: Counter, Bytes, "tower_quota_request_body_bytes_total",
        "Bytes of request bodies received.";
    BYTES_OUT: Counter, Bytes, "tower_quota_response_body_bytes_total",
        "Bytes of response bodies passed to the server.";
    DURATION: Histogram(REQUEST_DURATION), Seconds, "tower_quota_request_duration_seconds",
        "Time from receipt of the request to the end of the response body, by outcome.";
    TIME_TO_HEAD: Histogram(REQUEST_DURATION), Seconds, "tower_quota_time_to_head_seconds",
        "Time from receipt of the request to the upstream's response head, by outcome.";
    TIME_TO_FIRST_BYTE: Histogram(FIRST_BYTE), Seconds, "tower_quota_time_to_first_byte_seconds",
        "Time from receipt of the request to the first bytes of the upstream's response body.";
    COMMIT_DURATION: Histogram(WRITE_DURATION), Seconds, "tower_quota_store_commit_duration_seconds",
        "Duration of a transaction of the store's writer.";
    SYNC_DURATION: Histogram(WRITE_DURATION), Seconds, "tower_quota_store_sync_duration_seconds",
        "Duration of a sync of the journal to disk.";
    BATCH: Histogram(RECORDS), Count, "tower_quota_store_batch_records",
        "Journal records applied to the tables by one checkpoint.";
    STORE_FAILURES: Counter, Count, "tower_quota_store_failures_total",
        "Failed writes and failed reads of keys and counts, by part of the store.";
    PENDING_RECORDS: Gauge, Count, "tower_quota_store_unfolded_records",
        "Journal records waiting for the next checkpoint.";
    QUEUE: Gauge, Count, "tower_quota_store_queue_jobs",
        "Jobs waiting for the store's writer.";
    CONNECTIONS: Gauge, Count, "tower_quota_connections",
        "Open client connections of the server.";
    KEYS: Gauge, Count, "tower_quota_keys",
        "Existing keys.";
    KEYS_NEAR_LIMIT: Gauge, Count, "tower_quota_keys_near_limit",
        "Keys that have used at least this percentage of today's limit.";
}
