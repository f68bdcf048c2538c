//! Groups figures into the rows of a report. Shared by all back ends.

use std::{cmp::Reverse, collections::HashMap};

use super::{UsageFigures, UsageQuery, UsageReport, UsageRow};
use crate::{
    clock::Day,
    key::{KeyId, KeyRecord},
};

/// Rows by the parts that the query groups by.
pub(crate) struct ReportRows {
    query: UsageQuery,
    rows: HashMap<Group, (UsageFigures, u64)>,
}

#[derive(PartialEq, Eq, Hash)]
struct Group {
    day: Option<Day>,
    key_id: Option<KeyId>,
    model: Option<String>,
}

impl ReportRows {
    pub(crate) fn new(query: UsageQuery) -> Self {
        Self { query, rows: HashMap::new() }
    }

    /// Adds the figures of one day, key and model, if the query wants them.
    pub(crate) fn add_figures(&mut self, day: Day, id: &KeyId, model: &str, figures: UsageFigures) {
        if let Some(row) = self.row(day, id, Some(model)) {
            row.0 += figures;
        }
    }

    /// Adds the units used on one day by one key, if the query wants them. Units are not known by
    /// model.
    pub(crate) fn add_used(&mut self, day: Day, id: &KeyId, used: u64) {
        if !self.query.group_by.model
            && let Some(row) = self.row(day, id, None)
        {
            row.1 += used;
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

    /// The keys that the rows are about.
    #[cfg(feature = "sqlite")]
    pub(crate) fn key_ids(&self) -> impl Iterator<Item = &KeyId> {
        self.rows.keys().filter_map(|group| group.key_id.as_ref())
    }

    /// The rows, newest day first, busiest first within a day.
    pub(crate) fn into_report<'a>(
        self,
        total_keys: u64,
        record: impl Fn(&KeyId) -> Option<&'a KeyRecord>,
    ) -> UsageReport {
        let by_model = self.query.group_by.model;
        let mut rows: Vec<UsageRow> = self
            .rows
            .into_iter()
            .map(|(group, (figures, used))| {
                let record = group.key_id.as_ref().and_then(&record);
                UsageRow {
                    masked: record.map(|record| record.masked.clone()),
                    label: record.map(|record| record.label.clone()),
                    daily_limit: record.map(|record| record.daily_limit),
                    key_id: group.key_id,
                    day: group.day,
                    model: group.model,
                    used: (!by_model).then_some(used),
                    figures,
                }
            })
            .collect();
        rows.sort_by(|a, b| {
            let order = |row: &UsageRow| Reverse((row.day, row.used, row.figures.requests));
            order(a).cmp(&order(b)).then_with(|| a.key_id.cmp(&b.key_id))
        });
        UsageReport { rows, total_keys }
    }
}
