//! Metrics of the layers and the store, through the `metrics` facade.
//!
//! Handles are resolved when a layer or a store is created, so that a request costs a few atomic
//! additions: **install the recorder first**. Without a recorder, or without the feature `metrics`,
//! nothing is counted.
//!
//! No label holds a key, a key's id or label, a path, or other text that a client chooses. A model
//! gets a label of its own once the upstream has reported token usage under its name, and only the
//! first 50 names of plain form do; all others share `other`.
//!
//! ```
//! use tower_quota::metrics;
//!
//! // With `metrics-exporter-prometheus`: `PrometheusBuilder::install_recorder`, the buckets of each
//! // histogram, then
//! metrics::describe();
//! for metric in metrics::ALL {
//!     if let Some(buckets) = metric.buckets() {
//!         assert!(metric.name().ends_with("_seconds") || metric.name().ends_with("_records"));
//!         assert!(buckets.is_sorted());
//!     }
//! }
//! ```

#[cfg(any(feature = "usage", test))]
mod family;
#[cfg(any(feature = "server", feature = "usage"))]
mod guard;
pub(crate) mod names;
#[cfg(any(feature = "engine", feature = "quota", feature = "server", feature = "usage"))]
#[cfg_attr(not(feature = "metrics"), path = "noop.rs")]
// A quota alone has counters only.
#[cfg_attr(not(any(feature = "engine", feature = "usage")), allow(dead_code, unused_imports))]
mod recorded;

#[cfg(feature = "usage")]
pub(crate) use family::Family;
#[cfg(any(feature = "server", feature = "usage"))]
pub(crate) use guard::GaugeGuard;
pub use names::{ALL, Metric};
#[cfg(any(feature = "engine", feature = "quota", feature = "server", feature = "usage"))]
pub(crate) use recorded::*;

/// Describes each metric and its unit to the recorder; does nothing without the feature `metrics`.
pub fn describe() {
    #[cfg(feature = "metrics")]
    for &Metric { name, kind, unit, help } in ALL {
        match kind {
            names::Kind::Counter => ::metrics::describe_counter!(name, unit, help),
            names::Kind::Gauge => ::metrics::describe_gauge!(name, unit, help),
            names::Kind::Histogram(_) => ::metrics::describe_histogram!(name, unit, help),
        }
    }
}
