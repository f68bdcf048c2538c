//! The handles of the `metrics` facade.

pub(crate) use ::metrics::{Counter, Gauge, Histogram};
use ::metrics::{counter, gauge, histogram};

use super::Metric;

impl Metric {
    /// Returns the counter with these labels, which is exported as 0 from now on.
    pub(crate) fn counter(self, labels: &[(&'static str, &str)]) -> Counter {
        counter!(self.name, &owned(labels))
    }

    /// Returns the gauge with these labels.
    pub(crate) fn gauge(self, labels: &[(&'static str, &str)]) -> Gauge {
        gauge!(self.name, &owned(labels))
    }

    /// Returns the histogram with these labels.
    pub(crate) fn histogram(self, labels: &[(&'static str, &str)]) -> Histogram {
        histogram!(self.name, &owned(labels))
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}
