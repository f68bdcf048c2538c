//! The handles of the `metrics` facade.

pub(crate) use ::metrics::{Counter, Gauge, Histogram, Unit};
use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::{ALL, Metric, names::Kind};

/// Describes each metric and its unit to the recorder.
pub fn describe() {
    for &Metric { name, kind, unit, help } in ALL {
        match kind {
            Kind::Counter => describe_counter!(name, unit, help),
            Kind::Gauge => describe_gauge!(name, unit, help),
            Kind::Histogram(_) => describe_histogram!(name, unit, help),
        }
    }
}

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
