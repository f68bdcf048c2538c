use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use super::{MemoryStore, lock};
use crate::{
    clock::Day,
    key::KeyId,
    store::{
        StoreFuture, UsageEvent, UsageFigures, UsageQuery, UsageReader, UsageReport, UsageRow,
        UsageSink,
    },
};

/// Figures per day, key and model, and units per day and key.
#[derive(Default)]
pub(super) struct Totals {
    figures: BTreeMap<(Day, KeyId, String), UsageFigures>,
    used: BTreeMap<(KeyId, Day), u64>,
    last_used: HashMap<KeyId, SystemTime>,
}

impl Totals {
    pub(super) fn used(&mut self, id: &KeyId, day: Day, change: impl FnOnce(u64) -> u64) {
        let used = self.used.entry((id.clone(), day)).or_default();
        *used = change(*used);
    }

    pub(super) fn last_used(&mut self, id: &KeyId, at: SystemTime) {
        self.last_used.insert(id.clone(), at);
    }

    pub(super) fn last_used_at(&self, id: &KeyId) -> Option<SystemTime> {
        self.last_used.get(id).copied()
    }

    pub(super) fn used_on(&self, id: &KeyId, day: Day) -> u64 {
        self.used
            .get(&(id.clone(), day))
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn used_in_all(&self, id: &KeyId) -> u64 {
        self.used
            .iter()
            .filter(|((key, _), _)| key == id)
            .map(|(_, used)| used)
            .sum()
    }

    /// Rows by the parts that the query groups by.
    fn grouped(&self, query: &UsageQuery) -> BTreeMap<Group, (UsageFigures, u64)> {
        let wanted = |id: &KeyId, day: Day| {
            query.from <= day
                && day <= query.to
                && query.key_id.as_ref().is_none_or(|key| key == id)
        };
        let mut rows: BTreeMap<Group, (UsageFigures, u64)> = BTreeMap::new();
        for ((day, id, model), figures) in &self.figures {
            if wanted(id, *day) {
                rows.entry(Group::of(query, *day, id, Some(model)))
                    .or_default()
                    .0 += *figures;
            }
        }
        if !query.group_by.model {
            for ((id, day), used) in &self.used {
                if wanted(id, *day) {
                    rows.entry(Group::of(query, *day, id, None)).or_default().1 += used;
                }
            }
        }
        rows
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    day: Option<Day>,
    key_id: Option<KeyId>,
    model: Option<String>,
}

impl Group {
    fn of(query: &UsageQuery, day: Day, id: &KeyId, model: Option<&String>) -> Self {
        let by = query.group_by;
        Self {
            day: by.day.then_some(day),
            key_id: by.key.then(|| id.clone()),
            model: model.filter(|_| by.model).cloned(),
        }
    }
}

impl UsageSink for MemoryStore {
    fn record(&self, event: UsageEvent) {
        let Some(id) = &event.key_id else { return };
        let day = self.0.calendar.window(event.at).day;
        let model = event.model.clone().unwrap_or_default();
        let mut totals = lock(&self.0.totals);
        *totals.figures.entry((day, id.clone(), model)).or_default() += UsageFigures::from(&event);
    }
}

impl UsageReader for MemoryStore {
    fn report(&self, query: UsageQuery) -> StoreFuture<UsageReport> {
        let keys = lock(&self.0.keys);
        let grouped = lock(&self.0.totals).grouped(&query);
        let mut rows: Vec<UsageRow> = grouped
            .into_iter()
            .map(|(group, (figures, used))| {
                let record = group.key_id.as_ref().and_then(|id| keys.by_id(id));
                UsageRow {
                    masked: record.map(|record| record.masked.clone()),
                    label: record.map(|record| record.label.clone()),
                    daily_limit: record.map(|record| record.daily_limit),
                    key_id: group.key_id,
                    day: group.day,
                    model: group.model,
                    used: (!query.group_by.model).then_some(used),
                    figures,
                }
            })
            .collect();
        rows.sort_by(|a, b| {
            (b.day, b.used, b.figures.requests).cmp(&(a.day, a.used, a.figures.requests))
        });
        StoreFuture::ready(Ok(UsageReport {
            rows,
            total_keys: keys.len() as u64,
        }))
    }
}
