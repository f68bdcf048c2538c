//! Every metric of the library: its name, type, unit and meaning.

use std::fmt;

use ::metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

/// One metric.
#[derive(Clone, Copy)]
pub struct Metric {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    help: &'static str,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

impl Metric {
    const fn counter_of(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, unit, help }
    }

    const fn gauge_of(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit: Unit::Count, help }
    }

    const fn seconds(name: &'static str, buckets: &'static [f64], help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram(buckets), unit: Unit::Seconds, help }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it means, in one sentence.
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// The upper bounds that suit it, if it is a histogram.
    pub fn buckets(&self) -> Option<&'static [f64]> {
        match self.kind {
            Kind::Histogram(buckets) => Some(buckets),
            _ => None,
        }
    }

    pub(super) fn describe(self) {
        let Self { name, kind, unit, help } = self;
        match kind {
            Kind::Counter => describe_counter!(name, unit, help),
            Kind::Gauge => describe_gauge!(name, unit, help),
            Kind::Histogram(_) => describe_histogram!(name, unit, help),
        }
    }

    /// The counter of these labels, at 0 from now on.
    pub(crate) fn counter(self, labels: &[(&'static str, &str)]) -> Counter {
        counter!(self.name, &owned(labels))
    }

    /// The gauge of these labels.
    pub(crate) fn gauge(self, labels: &[(&'static str, &str)]) -> Gauge {
        gauge!(self.name, &owned(labels))
    }

    /// The histogram of these labels.
    pub(crate) fn histogram(self, labels: &[(&'static str, &str)]) -> Histogram {
        histogram!(self.name, &owned(labels))
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// OpenTelemetry's bounds for the duration of an operation of generative AI, and one for what the
/// gateway's own time limits let through.
const DURATIONS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84,
];
/// OpenTelemetry's bounds for the time to the first token.
const FIRST_BYTES: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const WRITES: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
const BATCHES: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0];

pub(crate) const REQUESTS: Metric = Metric::counter_of(
    "tower_quota_requests_total",
    Unit::Count,
    "Requests that have ended, by outcome and why.",
);
pub(crate) const IN_FLIGHT: Metric =
    Metric::gauge_of("tower_quota_requests_in_flight", "Requests that are under way.");
pub(crate) const UNITS_CHARGED: Metric = Metric::counter_of(
    "tower_quota_units_charged_total",
    Unit::Count,
    "Units that requests have used, after refunds.",
);
pub(crate) const UNITS_REFUNDED: Metric = Metric::counter_of(
    "tower_quota_units_refunded_total",
    Unit::Count,
    "Units that were given back.",
);
pub(crate) const TOKENS: Metric = Metric::counter_of(
    "tower_quota_tokens_total",
    Unit::Count,
    "Tokens that answers have told, by type and model served.",
);
pub(crate) const TOKENS_CACHED: Metric = Metric::counter_of(
    "tower_quota_tokens_cached_total",
    Unit::Count,
    "Of the prompt tokens, those that the upstream had in its cache, where it says so.",
);
pub(crate) const TOKENS_REASONING: Metric = Metric::counter_of(
    "tower_quota_tokens_reasoning_total",
    Unit::Count,
    "Of the completion tokens, those that the model thought with, where the upstream says so.",
);
pub(crate) const TOKENS_UNKNOWN: Metric = Metric::counter_of(
    "tower_quota_requests_without_tokens_total",
    Unit::Count,
    "Requests that succeeded and whose answer told no tokens.",
);
pub(crate) const BYTES_IN: Metric = Metric::counter_of(
    "tower_quota_request_body_bytes_total",
    Unit::Bytes,
    "Bytes of request bodies that were taken.",
);
pub(crate) const BYTES_OUT: Metric = Metric::counter_of(
    "tower_quota_response_body_bytes_total",
    Unit::Bytes,
    "Bytes of answers' bodies that were handed on.",
);
pub(crate) const DURATION: Metric = Metric::seconds(
    "tower_quota_request_duration_seconds",
    DURATIONS,
    "From receipt to the end of the answer's body, by outcome.",
);
pub(crate) const TIME_TO_HEAD: Metric = Metric::seconds(
    "tower_quota_time_to_head_seconds",
    DURATIONS,
    "From receipt to the head of the upstream's answer, by outcome.",
);
pub(crate) const TIME_TO_FIRST_BYTE: Metric = Metric::seconds(
    "tower_quota_time_to_first_byte_seconds",
    FIRST_BYTES,
    "From receipt to the first bytes of the upstream's answer's body.",
);
pub(crate) const COMMIT_DURATION: Metric = Metric::seconds(
    "tower_quota_store_commit_duration_seconds",
    WRITES,
    "One transaction of the store's writer, from its begin to its end.",
);
pub(crate) const SYNC_DURATION: Metric = Metric::seconds(
    "tower_quota_store_sync_duration_seconds",
    WRITES,
    "One sync of the journal to disk.",
);
pub(crate) const BATCH: Metric = Metric {
    name: "tower_quota_store_batch_records",
    kind: Kind::Histogram(BATCHES),
    unit: Unit::Count,
    help: "Records of the journal that one transaction has folded into the tables.",
};
pub(crate) const STORE_FAILURES: Metric = Metric::counter_of(
    "tower_quota_store_failures_total",
    Unit::Count,
    "Writes of the store that have failed, after which nothing is admitted until it recovers.",
);
pub(crate) const UNFOLDED: Metric = Metric::gauge_of(
    "tower_quota_store_unfolded_records",
    "Records of the journal that wait to be folded into the tables.",
);
pub(crate) const QUEUE: Metric =
    Metric::gauge_of("tower_quota_store_queue_jobs", "Jobs that wait for the store's writer.");
pub(crate) const KEYS: Metric = Metric::gauge_of("tower_quota_keys", "Keys that exist.");
pub(crate) const KEYS_NEAR_LIMIT: Metric = Metric::gauge_of(
    "tower_quota_keys_near_limit",
    "Keys that have used at least so many percent of today's limit.",
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
    UNFOLDED,
    QUEUE,
    KEYS,
    KEYS_NEAR_LIMIT,
];
