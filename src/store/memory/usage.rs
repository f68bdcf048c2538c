use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::SystemTime,
};

use foldhash::fast::RandomState;

use super::{MemoryStore, lock};
use crate::{
    clock::{Calendar, Day},
    key::KeyId,
    store::{
        StoreFuture, UsageEvent, UsageSink,
        report::{RequestQuery, RequestRecord, UsageFigures, UsageQuery, UsageReader, UsageReport},
        support::{ReportBuilder, model_name},
    },
};

/// Figures per day, key and model, and units per day and key.
#[derive(Default)]
pub(super) struct Totals {
    figures: BTreeMap<(Day, KeyId, String), UsageFigures>,
    used: HashMap<(KeyId, Day), u64, RandomState>,
    last_used: HashMap<KeyId, SystemTime, RandomState>,
    requests: VecDeque<RequestRecord>,
    /// Number of the last recorded request.
    last_number: u64,
    /// Units of keys on days that are no longer kept.
    earlier: HashMap<KeyId, u64>,
    forgotten_on: Option<Day>,
}

/// Number of days of which the units and figures of issued keys are kept, today included.
pub(super) const KEPT_DAYS: u32 = 31;

/// Maximum number of single requests that are kept.
const MAX_REQUESTS: usize = 1000;

impl Totals {
    pub(super) fn used(&mut self, id: &KeyId, day: Day, change: impl FnOnce(u64) -> u64) {
        let used = self.used.entry((id.clone(), day)).or_default();
        *used = change(*used);
    }

    /// Adds imported units for a day without known usage. The outcomes of its requests are unknown.
    #[cfg(feature = "admin")]
    pub(super) fn fill(&mut self, id: &KeyId, day: Day, requests: u64) {
        if let std::collections::hash_map::Entry::Vacant(used) = self.used.entry((id.clone(), day))
        {
            used.insert(requests);
            let figures = self.figures.entry((day, id.clone(), String::new())).or_default();
            figures.requests += requests;
        }
    }

    pub(super) fn last_used(&mut self, id: &KeyId, at: SystemTime) {
        self.last_used.insert(id.clone(), at);
    }

    #[cfg(feature = "admin")]
    pub(super) fn last_used_at(&self, id: &KeyId) -> Option<SystemTime> {
        self.last_used.get(id).copied()
    }

    pub(super) fn used_on(&self, id: &KeyId, day: Day) -> u64 {
        self.used.get(&(id.clone(), day)).copied().unwrap_or_default()
    }

    /// Returns the name under which the figures of a model are counted.
    fn model(&self, day: Day, id: &KeyId, model: &str) -> String {
        let from_key = (day, id.clone(), String::new())..;
        let models = self.figures.range(from_key).map(|(group, _)| group);
        let models = models.take_while(|(on, key_id, _)| *on == day && key_id == id);
        model_name(model, models.map(|(.., name)| name.as_str())).to_owned()
    }

    /// Whether [`forget`](Self::forget) was called on this day or later.
    pub(super) fn were_forgotten_on(&self, today: Day) -> bool {
        self.forgotten_on >= Some(today)
    }

    /// Drops what is no longer kept. `is_key` is true for issued keys.
    pub(super) fn forget(
        &mut self,
        today: Day,
        calendar: &Calendar,
        is_key: impl Fn(&KeyId) -> bool,
    ) {
        let (first, yesterday) = (today.minus(KEPT_DAYS - 1), today.minus(1));
        let is_kept = |id: &KeyId, day: Day| day >= yesterday || day >= first && is_key(id);
        self.figures.retain(|(day, id, _), _| is_kept(id, *day));
        let earlier = &mut self.earlier;
        self.used.retain(|(id, day), used| {
            let is_kept = is_kept(id, *day);
            if !is_kept && is_key(id) {
                *earlier.entry(id.clone()).or_default() += *used;
            }
            is_kept
        });
        let since = calendar.window_of(yesterday).start;
        self.last_used.retain(|id, at| *at >= since || is_key(id));
        self.forgotten_on = Some(today);
    }

    /// Returns the number of entries whose number depends on that of subjects.
    #[cfg(test)]
    pub(super) fn rows(&self) -> usize {
        self.figures.len() + self.used.len() + self.last_used.len() + self.earlier.len()
    }

    fn push_request(&mut self, event: UsageEvent) {
        self.last_number += 1;
        self.requests.truncate(MAX_REQUESTS - 1);
        if let Some(record) = RequestRecord::new(self.last_number, event) {
            self.requests.push_front(record);
        }
    }

    #[cfg(feature = "admin")]
    pub(super) fn used_in_all(&self, id: &KeyId) -> u64 {
        let kept = self.used.iter().filter(|((key, _), _)| key == id).map(|(_, used)| used);
        kept.chain(self.earlier.get(id)).sum()
    }
}

impl UsageSink for MemoryStore {
    fn record(&self, event: UsageEvent) {
        let Some(id) = &event.key_id else { return };
        let day = self.0.calendar.window(event.at).day;
        let mut totals = lock(&self.0.totals);
        let model = totals.model(day, id, event.model.as_deref().unwrap_or_default());
        *totals.figures.entry((day, id.clone(), model)).or_default() += UsageFigures::from(&event);
        totals.push_request(event);
        drop(totals);
        self.0.forget_past_days();
    }
}

impl UsageReader for MemoryStore {
    fn report(&self, query: UsageQuery) -> StoreFuture<UsageReport> {
        let keys = lock(&self.0.keys);
        let totals = lock(&self.0.totals);
        let includes_idle = query.idle;
        let mut rows = ReportBuilder::new(query);
        for ((day, id, model), figures) in &totals.figures {
            rows.add_figures(*day, id, model, *figures);
        }
        for ((id, day), used) in &totals.used {
            rows.add_used(*day, id, *used);
        }
        if includes_idle {
            rows.add_idle(keys.rows().map(|(_, row)| &row.record.id));
        }
        let mut report = rows.into_report();
        report.total_keys = keys.len() as u64;
        report.name_keys(|id| keys.by_id_or_deleted(id));
        StoreFuture::ready(Ok(report))
    }

    /// Selects from the last 1,000 requests.
    fn requests(&self, query: RequestQuery) -> StoreFuture<Vec<RequestRecord>> {
        let totals = lock(&self.0.totals);
        let matching = totals.requests.iter().filter(|record| query.matches(record));
        StoreFuture::ready(Ok(matching.take(query.limit).cloned().collect()))
    }
}
