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

/// Figures per day, key and model, and units of subjects.
#[derive(Default)]
pub(super) struct Totals {
    figures: BTreeMap<(Day, KeyId, String), UsageFigures>,
    units: HashMap<KeyId, Units, RandomState>,
    requests: VecDeque<RequestRecord>,
    /// Number of the last recorded request.
    last_number: u64,
    forgotten_on: Option<Day>,
}

/// Units of one subject.
#[derive(Default)]
pub(super) struct Units {
    /// Numbers of units used on the days that are kept.
    used: Vec<(Day, u64)>,
    /// Units of a key on days that are no longer kept.
    earlier: u64,
    /// Time of the last reservation, under any quota.
    pub(super) last_used_at: Option<SystemTime>,
}

/// Number of days of which the units and figures of issued keys are kept, today included.
pub(super) const KEPT_DAYS: u32 = 31;

/// Maximum number of single requests that are kept.
const MAX_REQUESTS: usize = 1000;

impl Units {
    /// Returns the number of units used on this day.
    pub(super) fn used_on(&mut self, day: Day) -> &mut u64 {
        // From the end, as nearly always the last day matches.
        let at = self.used.iter().rposition(|(on, _)| *on == day).unwrap_or_else(|| {
            self.used.push((day, 0));
            self.used.len() - 1
        });
        &mut self.used[at].1
    }

    fn is_empty(&self) -> bool {
        let Self { used, earlier, last_used_at } = self;
        used.is_empty() && *earlier == 0 && last_used_at.is_none()
    }
}

impl Totals {
    /// Returns the units of a subject.
    pub(super) fn units(&mut self, id: &KeyId) -> &mut Units {
        self.units.entry(id.clone()).or_default()
    }

    /// Adds imported units for a day without known usage. The outcomes of its requests are unknown.
    #[cfg(feature = "admin")]
    pub(super) fn fill(&mut self, id: &KeyId, day: Day, requests: u64) {
        let units = self.units(id);
        if units.used.iter().all(|(on, _)| *on != day) {
            units.used.push((day, requests));
            let figures = self.figures.entry((day, id.clone(), String::new())).or_default();
            figures.requests += requests;
        }
    }

    #[cfg(feature = "admin")]
    pub(super) fn last_used_at(&self, id: &KeyId) -> Option<SystemTime> {
        self.units.get(id)?.last_used_at
    }

    pub(super) fn used_on(&self, id: &KeyId, day: Day) -> u64 {
        let days = self.units.get(id).map(|units| &*units.used).unwrap_or_default();
        days.iter().find(|(on, _)| *on == day).map_or(0, |(_, used)| *used)
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
        let since = calendar.window_of(yesterday).start;
        self.units.retain(|id, units| {
            let Units { used, earlier, last_used_at } = units;
            used.retain(|(day, used)| {
                let is_kept = is_kept(id, *day);
                if !is_kept && is_key(id) {
                    *earlier += used;
                }
                is_kept
            });
            *last_used_at = last_used_at.filter(|at| *at >= since || is_key(id));
            !units.is_empty()
        });
        self.forgotten_on = Some(today);
    }

    /// Returns the number of entries whose number depends on that of subjects.
    #[cfg(test)]
    pub(super) fn rows(&self) -> usize {
        let days = self.units.values().map(|units| units.used.len());
        self.figures.len() + self.units.len() + days.sum::<usize>()
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
        let in_all =
            |units: &Units| units.earlier + units.used.iter().map(|(_, used)| used).sum::<u64>();
        self.units.get(id).map_or(0, in_all)
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
        for (id, units) in &totals.units {
            units.used.iter().for_each(|(day, used)| rows.add_used(*day, id, *used));
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
