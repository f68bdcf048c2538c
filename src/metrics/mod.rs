//! What the layers and the store tell through the `metrics` facade.
//!
//! Handles are resolved when a layer or a store is made, so that a request costs a few atomic
//! additions: **install the recorder first**. Without one nothing is counted.
//!
//! No label holds a key, a key's id or label, a path, or other text that a client chooses. Models
//! are named as the upstream names them once it has told tokens for them, and only the first 50 of
//! plain form; the rest are `other`.
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

mod family;
mod names;

pub(crate) use family::Family;
pub(crate) use names::*;
pub use names::{ALL, Metric};

/// Tells the recorder what each metric means, and its unit.
pub fn describe() {
    ALL.iter().copied().for_each(Metric::describe);
}
