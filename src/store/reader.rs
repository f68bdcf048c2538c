use std::sync::Arc;

use super::{RequestQuery, RequestRecord, StoreFuture, UsageFigures};
use crate::{
    clock::Day,
    key::{DailyLimit, KeyId},
};

/// Which figures are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageQuery {
    /// The first day.
    pub from: Day,
    /// The last day.
    pub to: Day,
    /// One key's only.
    pub key_id: Option<KeyId>,
    /// What one row stands for.
    pub group_by: GroupBy,
    /// Which of the rows are told.
    pub page: ReportPage,
    /// Whether keys without any figures follow, in the order of their issue. Only for one day's rows
    /// by key and day, busiest first.
    pub idle: bool,
}

/// Which rows of a report are told, and in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportPage {
    /// Newest day first, busiest first within a day: `limit` rows after the first `skip`.
    Busiest {
        /// How many rows are left out.
        skip: usize,
        /// How many are told.
        limit: usize,
    },
    /// Newest day first, in the order of the keys' ids within a day: all rows of `limit` keys after
    /// this one. For reading very many rows, which are grouped by key, one page after the other.
    ById {
        /// The day, if rows are grouped by it, and the key of the last row before.
        after: Option<(Option<Day>, KeyId)>,
        /// Of how many keys rows are told; each day's count anew.
        limit: usize,
    },
}

impl ReportPage {
    /// All rows.
    pub fn all() -> Self {
        Self::Busiest { skip: 0, limit: usize::MAX }
    }
}

impl UsageQuery {
    /// The figures of these days, one row a key and day.
    pub fn days(from: Day, to: Day) -> Self {
        let group_by = GroupBy { key: true, day: true, model: false };
        Self { from, to, key_id: None, group_by, page: ReportPage::all(), idle: false }
    }

    /// Followed by keys without any figures.
    #[must_use]
    pub fn with_idle(self) -> Self {
        Self { idle: true, ..self }
    }

    /// Grouped otherwise.
    #[must_use]
    pub fn group_by(self, group_by: GroupBy) -> Self {
        Self { group_by, ..self }
    }

    /// Only these rows.
    #[must_use]
    pub fn page(self, page: ReportPage) -> Self {
        Self { page, ..self }
    }

    /// Only this key's.
    #[must_use]
    pub fn key(mut self, key_id: KeyId) -> Self {
        self.key_id = Some(key_id);
        self
    }
}

/// What one row of a report stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBy {
    /// A row for each key.
    pub key: bool,
    /// A row for each day.
    pub day: bool,
    /// A row for each model.
    pub model: bool,
}

/// One row of a report. The parts that it is not grouped by are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageRow {
    /// The key's id.
    pub key_id: Option<KeyId>,
    /// The masked key; of one that was deleted, as it was last.
    pub masked: Option<String>,
    /// The key's label; of one that was deleted, as it was last.
    pub label: Option<String>,
    /// The key's limit as it is now; of one that was deleted, as it was last.
    pub daily_limit: Option<DailyLimit>,
    /// The day.
    pub day: Option<Day>,
    /// The model.
    pub model: Option<String>,
    /// Units used, after refunds and resets. `None` when the row is one of several models, or of all
    /// keys together.
    pub used: Option<u64>,
    /// The figures.
    pub figures: UsageFigures,
}

/// The answer to a [`UsageQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageReport {
    /// The rows of the page.
    pub rows: Vec<UsageRow>,
    /// Whether there are more behind it.
    pub has_more: bool,
    /// How many requests were admitted in all, on whatever page.
    pub total_requests: u64,
    /// How many keys were used.
    pub active_keys: u64,
    /// How many keys exist.
    pub total_keys: u64,
}

/// Reads figures of the past.
pub trait UsageReader: Send + Sync + 'static {
    /// The figures that the query asks for, with all events that were recorded before the call.
    fn report(&self, query: UsageQuery) -> StoreFuture<UsageReport>;

    /// Single requests, as far as the store keeps them, with all events that were recorded before
    /// the call; the latest first.
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
