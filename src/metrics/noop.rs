//! Handles that record nothing, so that the other modules need not know whether the feature is on.

use super::Metric;

#[derive(Clone)]
pub(crate) struct Counter;

#[derive(Clone)]
pub(crate) struct Gauge;

#[derive(Clone)]
pub(crate) struct Histogram;

impl Counter {
    pub(crate) fn increment(&self, _: u64) {}
}

impl Gauge {
    #[cfg(any(feature = "server", feature = "usage"))]
    pub(crate) fn increment(&self, _: f64) {}

    #[cfg(any(feature = "server", feature = "usage"))]
    pub(crate) fn decrement(&self, _: f64) {}

    #[cfg(feature = "engine")]
    pub(crate) fn set(&self, _: f64) {}
}

impl Histogram {
    pub(crate) fn record<T>(&self, _: T) {}
}

impl Metric {
    pub(crate) fn counter(self, _: &[(&'static str, &str)]) -> Counter {
        Counter
    }

    pub(crate) fn gauge(self, _: &[(&'static str, &str)]) -> Gauge {
        Gauge
    }

    pub(crate) fn histogram(self, _: &[(&'static str, &str)]) -> Histogram {
        Histogram
    }
}
