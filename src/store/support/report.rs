use std::{
    cmp::{Ordering, Reverse},
    collections::{HashMap, HashSet},
};

use crate::{
    clock::Day,
    key::KeyId,
    store::report::{
        MAX_MODELS_PER_DAY, OTHER_MODELS, ReportPage, UsageFigures, UsageQuery, UsageReport,
        UsageRow,
    },
};

/// Builds a report from the figures and the units of days and keys, grouped and paged as its query says.
///
/// ```
/// use tower_quota::{
///     key::KeyId,
///     store::{
///         report::{UsageFigures, UsageQuery},
///         support::ReportBuilder,
///     },
/// };
///
/// let (day, alice) = ("2026-11-22".parse()?, KeyId::from("alice"));
/// let mut figures = UsageFigures::default();
/// figures.requests = 3;
/// let mut builder = ReportBuilder::new(UsageQuery::days(day, day));
/// builder.add_figures(day, &alice, "a model", figures);
/// builder.add_used(day, &alice, 2);
/// let report = builder.into_report();
/// assert_eq!((report.rows[0].used, report.rows[0].figures.requests), (Some(2), 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ReportBuilder {
    query: UsageQuery,
    rows: HashMap<Group, (UsageFigures, u64)>,
    active: HashSet<KeyId>,
    idle: Vec<UsageRow>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Group {
    day: Option<Day>,
    key_id: Option<KeyId>,
    model: Option<String>,
}

impl ReportBuilder {
    /// Creates the builder of a report without rows.
    pub fn new(query: UsageQuery) -> Self {
        Self { query, rows: HashMap::new(), active: HashSet::new(), idle: Vec::new() }
    }

    /// Adds the figures of one day, key and model, if the query selects them.
    pub fn add_figures(&mut self, day: Day, id: &KeyId, model: &str, figures: UsageFigures) {
        if let Some(row) = self.row(day, id, Some(model)) {
            row.0 += figures;
            if figures.requests > 0 {
                self.note_active(id);
            }
        }
    }

    /// Adds the units used on one day by one key, if the query selects them. Units are not counted
    /// per model.
    pub fn add_used(&mut self, day: Day, id: &KeyId, used: u64) {
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

    /// Adds rows for those of these keys that have none, for a query with
    /// [`idle`](UsageQuery::idle). To be called last.
    pub fn add_idle<'a>(&mut self, keys: impl Iterator<Item = &'a KeyId>) {
        let day = Some(self.query.to);
        let group = |id: &KeyId| Group { day, key_id: Some(id.clone()), model: None };
        let idle = keys.filter(|id| !self.rows.contains_key(&group(id)));
        self.idle = idle.map(|id| UsageRow::idle(self.query.to, id.clone())).collect();
    }

    /// Returns the report. Its keys have no names yet ([`UsageReport::name_keys`]), and
    /// [`total_keys`](UsageReport::total_keys) is 0.
    pub fn into_report(self) -> UsageReport {
        let by = self.query.group_by;
        let total_requests = self.rows.values().map(|(figures, _)| figures.requests).sum();
        let rows = self.rows.into_iter().map(|(group, (figures, used))| UsageRow {
            key_id: group.key_id,
            day: group.day,
            model: group.model,
            used: (by.key && !by.model).then_some(used),
            figures,
            ..UsageRow::default()
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

/// Compares rows in the order of [`ReportPage::Busiest`].
pub(crate) fn busiest_first(a: &UsageRow, b: &UsageRow) -> Ordering {
    let order = |row: &UsageRow| Reverse((row.day, row.used, row.figures.requests));
    order(a)
        .cmp(&order(b))
        .then_with(|| a.key_id.cmp(&b.key_id))
        .then_with(|| a.model.cmp(&b.model))
}

/// Returns the name under which the figures of a model are counted, if those of `counted` are of the same
/// key and day: `other` beyond the first 64.
pub fn model_name<'a>(model: &'a str, counted: impl IntoIterator<Item = &'a str>) -> &'a str {
    let mut names = 0;
    for name in counted.into_iter().filter(|name| !["", OTHER_MODELS].contains(name)) {
        if name == model {
            return model;
        }
        names += 1;
    }
    if model.is_empty() || names < MAX_MODELS_PER_DAY { model } else { OTHER_MODELS }
}
