//! Reports of past usage: the trait [`UsageReader`] and its types.

#[cfg(feature = "engine")]
mod columns;
mod figures;
#[cfg(feature = "engine")]
mod permits;
mod requests;

use std::sync::Arc;

#[cfg(feature = "usage")]
pub(crate) use self::figures::TokenSums;
pub(crate) use self::figures::{MAX_MODELS_PER_DAY, OTHER_MODELS};
#[cfg(feature = "engine")]
pub(crate) use self::{
    columns::{Cell, FIGURES, request_cells},
    permits::ReportPermits,
};
pub use self::{
    figures::UsageFigures,
    requests::{RequestQuery, RequestRecord},
};
use crate::{
    clock::Day,
    key::{KeyId, KeyRecord, Limit},
    store::StoreFuture,
};

/// Selection and grouping of a usage report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageQuery {
    /// First day.
    pub from: Day,
    /// Last day.
    pub to: Day,
    /// Only this key.
    pub key_id: Option<KeyId>,
    /// Grouping of the rows.
    pub group_by: GroupBy,
    /// Page and order of the rows.
    pub page: ReportPage,
    /// Whether rows of unused keys follow, in the order in which the keys were issued. Has an
    /// effect only on [`ReportPage::Busiest`] of a single day, grouped by key and day.
    pub idle: bool,
}

/// Page of a report, and the order of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportPage {
    /// Newest day first, and most used first within a day.
    Busiest {
        /// Number of rows to skip.
        skip: usize,
        /// Maximum number of rows.
        limit: usize,
    },
    /// Newest day first, and by the id of the key within a day. Suited to reading a very large
    /// number of rows, grouped by key, page by page.
    ById {
        /// Day (if rows are grouped by day) and key of the last row of the previous page.
        after: Option<(Option<Day>, KeyId)>,
        /// Maximum number of keys, where a key counts again on each day. All rows of a key are on
        /// the same page.
        limit: usize,
    },
}

impl ReportPage {
    /// A single page with all rows.
    pub fn all() -> Self {
        Self::Busiest { skip: 0, limit: usize::MAX }
    }
}

impl UsageQuery {
    /// Creates a query of these days with one row per key and day.
    pub fn days(from: Day, to: Day) -> Self {
        let group_by = GroupBy { key: true, day: true, model: false };
        Self { from, to, key_id: None, group_by, page: ReportPage::all(), idle: false }
    }

    /// Includes rows of unused keys.
    #[must_use]
    pub fn idle(self) -> Self {
        Self { idle: true, ..self }
    }

    /// Sets the grouping.
    #[must_use]
    pub fn group_by(self, group_by: GroupBy) -> Self {
        Self { group_by, ..self }
    }

    /// Sets the page.
    #[must_use]
    pub fn page(self, page: ReportPage) -> Self {
        Self { page, ..self }
    }

    /// Selects a single key.
    #[must_use]
    pub fn key(mut self, key_id: KeyId) -> Self {
        self.key_id = Some(key_id);
        self
    }
}

/// Grouping of a report's rows; the default is a single row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupBy {
    /// One row per key.
    pub key: bool,
    /// One row per day.
    pub day: bool,
    /// One row per model.
    pub model: bool,
}

/// Row of a report. Fields by which the report is not grouped are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageRow {
    /// Id of the key.
    pub key_id: Option<KeyId>,
    /// The key with its secret part left out; the last one if the key was deleted.
    pub masked: Option<String>,
    /// Label of the key; the last one if the key was deleted.
    pub label: Option<String>,
    /// Present daily limit of the key; the last one if the key was deleted.
    pub daily_limit: Option<Limit>,
    /// The day.
    pub day: Option<Day>,
    /// The model; `other` stands for those that have no figures of their own on a day of a key.
    pub model: Option<String>,
    /// Units used, after refunds and resets. `None` if rows are grouped by model or not grouped by
    /// key.
    pub used: Option<u64>,
    /// Requests and tokens.
    pub figures: UsageFigures,
}

/// Result of a [`UsageQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageReport {
    /// Rows of the page.
    pub rows: Vec<UsageRow>,
    /// Whether there are rows after this page.
    pub has_more: bool,
    /// Number of admitted requests on all pages.
    pub total_requests: u64,
    /// Number of keys that were used.
    pub active_keys: u64,
    /// Number of keys that exist.
    pub total_keys: u64,
}

/// Reads past usage.
pub trait UsageReader: Send + Sync + 'static {
    /// Returns a usage report, which includes all events recorded before the call.
    fn report(&self, query: UsageQuery) -> StoreFuture<UsageReport>;

    /// Returns the single requests that the store has kept, latest first, including all events
    /// recorded before the call.
    fn requests(&self, query: RequestQuery) -> StoreFuture<Vec<RequestRecord>>;
}

impl<T: UsageReader + ?Sized> UsageReader for Arc<T> {
    fn report(&self, query: UsageQuery) -> StoreFuture<UsageReport> {
        (**self).report(query)
    }

    fn requests(&self, query: RequestQuery) -> StoreFuture<Vec<RequestRecord>> {
        (**self).requests(query)
    }
}

impl UsageRow {
    /// Creates the row of a key that was not used on this day.
    pub fn idle(day: Day, id: KeyId) -> Self {
        Self { key_id: Some(id), day: Some(day), used: Some(0), ..Self::default() }
    }
}

impl UsageReport {
    /// Adds masked key, label and limit to each row of a key, from its record or the last one if the key
    /// was deleted.
    pub fn name_keys<'a>(&mut self, record: impl Fn(&KeyId) -> Option<&'a KeyRecord>) {
        for row in &mut self.rows {
            if let Some(record) = row.key_id.as_ref().and_then(&record) {
                row.masked = Some(record.masked.clone());
                row.label = Some(record.label.clone());
                row.daily_limit = Some(record.daily_limit);
            }
        }
    }
}
