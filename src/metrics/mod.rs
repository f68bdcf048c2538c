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

// Each feature counts by a part of this.
#![cfg_attr(
    not(all(feature = "metrics", feature = "sqlite", feature = "usage")),
    allow(dead_code, unused_imports)
)]

mod family;
mod names;
#[cfg_attr(not(feature = "metrics"), path = "noop.rs")]
mod recorded;

pub(crate) use family::Family;
pub(crate) use names::*;
pub use names::{ALL, Metric};
pub use recorded::describe;
pub(crate) use recorded::{Counter, Gauge, Histogram, Unit};
