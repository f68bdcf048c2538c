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
    const fn new_counter(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, unit, help }
    }

    const fn new_gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit: Unit::Count, help }
    }

    const fn new_histogram(
        name: &'static str,
        unit: Unit,
        buckets: &'static [f64],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Histogram(buckets), unit, help }
    }

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
const REQUEST_DURATION_BUCKETS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84,
];
/// OpenTelemetry's buckets for the time to the first token.
const FIRST_BYTE_BUCKETS: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Buckets for durations of disk writes.
const WRITE_DURATION_BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// Buckets for numbers of journal records.
const RECORD_BUCKETS: &[f64] =
    &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0];

pub(crate) const REQUESTS: Metric = Metric::new_counter(
    "tower_quota_requests_total",
    Unit::Count,
    "Requests that have ended, by outcome and reason.",
);
pub(crate) const IN_FLIGHT: Metric =
    Metric::new_gauge("tower_quota_requests_in_flight", "Requests in flight.");
pub(crate) const UNITS_CHARGED: Metric = Metric::new_counter(
    "tower_quota_units_charged_total",
    Unit::Count,
    "Quota units charged, less those refunded.",
);
pub(crate) const UNITS_REFUNDED: Metric =
    Metric::new_counter("tower_quota_units_refunded_total", Unit::Count, "Quota units refunded.");
pub(crate) const TOKENS: Metric = Metric::new_counter(
    "tower_quota_tokens_total",
    Unit::Count,
    "Tokens that responses reported, by type and served model.",
);
pub(crate) const TOKENS_CACHED: Metric = Metric::new_counter(
    "tower_quota_tokens_cached_total",
    Unit::Count,
    "Cached tokens (subset of prompt tokens).",
);
pub(crate) const TOKENS_REASONING: Metric = Metric::new_counter(
    "tower_quota_tokens_reasoning_total",
    Unit::Count,
    "Reasoning tokens (subset of completion tokens).",
);
pub(crate) const TOKENS_UNKNOWN: Metric = Metric::new_counter(
    "tower_quota_requests_without_tokens_total",
    Unit::Count,
    "Successful requests whose response reported no tokens.",
);
pub(crate) const BYTES_IN: Metric = Metric::new_counter(
    "tower_quota_request_body_bytes_total",
    Unit::Bytes,
    "Bytes of request bodies received.",
);
pub(crate) const BYTES_OUT: Metric = Metric::new_counter(
    "tower_quota_response_body_bytes_total",
    Unit::Bytes,
    "Bytes of response bodies passed to the server.",
);
pub(crate) const DURATION: Metric = Metric::new_histogram(
    "tower_quota_request_duration_seconds",
    Unit::Seconds,
    REQUEST_DURATION_BUCKETS,
    "Time from receipt of the request to the end of the response body, by outcome.",
);
pub(crate) const TIME_TO_HEAD: Metric = Metric::new_histogram(
    "tower_quota_time_to_head_seconds",
    Unit::Seconds,
    REQUEST_DURATION_BUCKETS,
    "Time from receipt of the request to the upstream's response head, by outcome.",
);
pub(crate) const TIME_TO_FIRST_BYTE: Metric = Metric::new_histogram(
    "tower_quota_time_to_first_byte_seconds",
    Unit::Seconds,
    FIRST_BYTE_BUCKETS,
    "Time from receipt of the request to the first bytes of the upstream's response body.",
);
pub(crate) const COMMIT_DURATION: Metric = Metric::new_histogram(
    "tower_quota_store_commit_duration_seconds",
    Unit::Seconds,
    WRITE_DURATION_BUCKETS,
    "Duration of a transaction of the store's writer.",
);
pub(crate) const SYNC_DURATION: Metric = Metric::new_histogram(
    "tower_quota_store_sync_duration_seconds",
    Unit::Seconds,
    WRITE_DURATION_BUCKETS,
    "Duration of a sync of the journal to disk.",
);
pub(crate) const BATCH: Metric = Metric::new_histogram(
    "tower_quota_store_batch_records",
    Unit::Count,
    RECORD_BUCKETS,
    "Journal records applied to the tables by one checkpoint.",
);
pub(crate) const STORE_FAILURES: Metric = Metric::new_counter(
    "tower_quota_store_failures_total",
    Unit::Count,
    "Failed writes and failed reads of keys and counts, by part of the store.",
);
pub(crate) const PENDING_RECORDS: Metric = Metric::new_gauge(
    "tower_quota_store_unfolded_records",
    "Journal records waiting for the next checkpoint.",
);
pub(crate) const QUEUE: Metric =
    Metric::new_gauge("tower_quota_store_queue_jobs", "Jobs waiting for the store's writer.");
pub(crate) const KEYS: Metric = Metric::new_gauge("tower_quota_keys", "Existing keys.");
pub(crate) const KEYS_NEAR_LIMIT: Metric = Metric::new_gauge(
    "tower_quota_keys_near_limit",
    "Keys that have used at least this percentage of today's limit.",
);

/// All metrics of the library.
pub const ALL: &[Metric] = &[
    REQUESTS,
    IN_FLIGHT,
    UNITS_CHARGED,
    UNITS_REFUNDED,
    TOKENS,
    TOKENS_CACHED,
    TOKENS_REASONING,
    TOKENS_UNKNOWN,
    BYTES_IN,
    BYTES_OUT,
    DURATION,
    TIME_TO_HEAD,
    TIME_TO_FIRST_BYTE,
    COMMIT_DURATION,
    SYNC_DURATION,
    BATCH,
    STORE_FAILURES,
    PENDING_RECORDS,
    QUEUE,
    KEYS,
    KEYS_NEAR_LIMIT,
];
