//! What stores have in common, for those who write one. `MemoryStore` uses it, too.
//!
//! | a store needs | and finds |
//! |---|---|
//! | to count units of a request, and return them | [`ReserveOutcome::admitted`](super::ReserveOutcome::admitted); [`Demand::window`](super::Demand::window) |
//! | to correct them, too | a [`Reservation`](super::Reservation) |
//! | to keep single requests, and select them | [`RequestRecord::new`](super::report::RequestRecord::new), [`RequestQuery::matches`](super::report::RequestQuery::matches) |
//! | to sum up events, group, order and page them | [`UsageFigures::from`](super::report::UsageFigures), [`model_name`], [`ReportBuilder`], [`UsageReport::name_keys`](super::report::UsageReport::name_keys) |
//!
//! For the traits of the administration, `admin::store` lists more.
//! The example `custom_store` is a store for keys and quotas over `HashMap`s, `custom_admin_store` one with every trait.

mod report;

#[cfg(feature = "engine")]
pub(crate) use self::report::busiest_first;
pub use self::report::{ReportBuilder, model_name};
