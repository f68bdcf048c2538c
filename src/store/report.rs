//! Reports of past usage.

use std::{
    cmp::{Ordering, Reverse},
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{RequestQuery, RequestRecord, StoreFuture, UsageFigures};
use crate::{
    clock::Day,
    key::{KeyId, KeyRecord, Limit},
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
    pub fn with_idle(self) -> Self {
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

/// Grouping of a report's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The model.
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

/// Rows of a report in the making, grouped as the query says.
pub(crate) struct ReportRows {
    query: UsageQuery,
    rows: HashMap<Group, (UsageFigures, u64)>,
    active: HashSet<KeyId>,
    idle: Vec<UsageRow>,
}

#[derive(PartialEq, Eq, Hash)]
struct Group {
    day: Option<Day>,
    key_id: Option<KeyId>,
    model: Option<String>,
}

impl ReportRows {
    pub(crate) fn new(query: UsageQuery) -> Self {
        Self { query, rows: HashMap::new(), active: HashSet::new(), idle: Vec::new() }
    }

    /// Adds the figures of one day, key and model, if the query selects them.
    pub(crate) fn add_figures(&mut self, day: Day, id: &KeyId, model: &str, figures: UsageFigures) {
        if let Some(row) = self.row(day, id, Some(model)) {
            row.0 += figures;
            if figures.requests > 0 {
                self.note_active(id);
            }
        }
    }

    /// Adds the units used on one day by one key, if the query selects them. Units are not counted
    /// per model.
    pub(crate) fn add_used(&mut self, day: Day, id: &KeyId, used: u64) {
        let by = self.query.group_by;
        if by.key
            && !by.model
            && let Some(row) = self.row(day, id, None)
        {
            row.1 += used;
            if used > 0 {
                self.note_active(id);
            }
        }
    }

    fn note_active(&mut self, id: &KeyId) {
        if !self.active.contains(id) {
            self.active.insert(id.clone());
        }
    }

    fn row(
        &mut self,
        day: Day,
        id: &KeyId,
        model: Option<&str>,
    ) -> Option<&mut (UsageFigures, u64)> {
        let query = &self.query;
        let in_range = query.from <= day && day <= query.to;
        if !in_range || query.key_id.as_ref().is_some_and(|key| key != id) {
            return None;
        }
        let by = query.group_by;
        let group = Group {
            day: by.day.then_some(day),
            key_id: by.key.then(|| id.clone()),
            model: model.filter(|_| by.model).map(str::to_owned),
        };
        Some(self.rows.entry(group).or_default())
    }

    /// Adds rows for those of these keys that have none.
    #[cfg(feature = "memory")]
    pub(crate) fn add_idle<'a>(&mut self, keys: impl Iterator<Item = &'a KeyId>) {
        let day = Some(self.query.to);
        let group = |id: &KeyId| Group { day, key_id: Some(id.clone()), model: None };
        let idle = keys.filter(|id| !self.rows.contains_key(&group(id)));
        self.idle = idle.map(|id| UsageRow::empty(self.query.to, id.clone())).collect();
    }

    /// Returns the report without the names and the number of keys.
    pub(crate) fn into_report(self) -> UsageReport {
        let by = self.query.group_by;
        let total_requests = self.rows.values().map(|(figures, _)| figures.requests).sum();
        let rows = self.rows.into_iter().map(|(group, (figures, used))| UsageRow {
            masked: None,
            label: None,
            daily_limit: None,
            key_id: group.key_id,
            day: group.day,
            model: group.model,
            used: (by.key && !by.model).then_some(used),
            figures,
        });
        let (rows, has_more) = paged(rows.collect(), self.idle, &self.query.page);
        let active_keys = self.active.len() as u64;
        UsageReport { rows, has_more, total_requests, active_keys, total_keys: 0 }
    }
}

/// Returns the rows of a page, and whether there are rows after it.
fn paged(mut rows: Vec<UsageRow>, idle: Vec<UsageRow>, page: &ReportPage) -> (Vec<UsageRow>, bool) {
    let limit = match page {
        ReportPage::Busiest { skip, limit } => {
            rows.sort_by(busiest_first);
            rows.extend(idle);
            rows.drain(..rows.len().min(*skip));
            *limit
        }
        ReportPage::ById { after, limit } => {
            let position = |row: &UsageRow| (Reverse(row.day), row.key_id.clone());
            rows.sort_by(|a, b| position(a).cmp(&position(b)).then_with(|| a.model.cmp(&b.model)));
            if let Some((day, id)) = after {
                let after = (Reverse(*day), Some(id.clone()));
                rows.retain(|row| position(row) > after);
            }
            let mut keys = 0;
            rows.windows(2)
                .take_while(|pair| {
                    keys += usize::from(position(&pair[0]) != position(&pair[1]));
                    keys < *limit
                })
                .count()
                + 1
        }
    };
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    (rows, has_more)
}

impl UsageRow {
    /// Creates the row of an unused key.
    pub(crate) fn empty(day: Day, id: KeyId) -> Self {
        Self {
            key_id: Some(id),
            masked: None,
            label: None,
            daily_limit: None,
            day: Some(day),
            model: None,
            used: Some(0),
            figures: UsageFigures::default(),
        }
    }
}

/// Compares rows in the order of [`ReportPage::Busiest`].
pub(crate) fn busiest_first(a: &UsageRow, b: &UsageRow) -> Ordering {
    let order = |row: &UsageRow| Reverse((row.day, row.used, row.figures.requests));
    order(a)
        .cmp(&order(b))
        .then_with(|| a.key_id.cmp(&b.key_id))
        .then_with(|| a.model.cmp(&b.model))
}

/// Adds the masked key, label and limit to each row.
pub(crate) fn name_keys<'a>(
    report: &mut UsageReport,
    record: impl Fn(&KeyId) -> Option<&'a KeyRecord>,
) {
    for row in &mut report.rows {
        if let Some(record) = row.key_id.as_ref().and_then(&record) {
            row.masked = Some(record.masked.clone());
            row.label = Some(record.label.clone());
            row.daily_limit = Some(record.daily_limit);
        }
    }
}
