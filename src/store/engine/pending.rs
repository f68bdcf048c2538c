use std::collections::HashMap;

use super::journal::{ChangeBeside, CountChange, Position, Record, ShareUse, UsageEntry};
use crate::{
    clock::Day,
    key::KeyId,
    store::{
        Quota,
        counter::{CounterKey, Origin},
        report::{MAX_MODELS_PER_DAY, OTHER_MODELS, RequestRecord, UsageFigures},
    },
};

/// Journal records that are not checkpointed yet, summed up.
#[derive(Default)]
pub(crate) struct PendingBatch {
    subjects: HashMap<KeyId, Subject, foldhash::fast::RandomState>,
    /// Rows of single requests that are kept.
    pub(crate) requests: Vec<RequestRecord>,
    /// Number of records in this batch.
    pub(crate) records: usize,
    /// Position in the journal after this batch.
    pub(crate) position: Option<Position>,
}

/// Pending changes of one subject.
#[derive(Default)]
pub(crate) struct Subject {
    pub(crate) counts: Vec<(Quota, Origin, Delta)>,
    pub(crate) figures: Vec<Figures>,
    /// Number of requests that began minus the number of those that ended.
    pub(crate) open: i64,
    /// Last day on which a request began under a quota whose period is longer than a day.
    opened_on: Option<Day>,
}

/// Sum of the changes of one counter.
#[derive(Clone, Copy, Default)]
pub(crate) struct Delta {
    pub(crate) used: i64,
    pub(crate) refunded: i64,
    pub(crate) last_used_at: Option<i64>,
    pub(crate) granted: Option<u64>,
    /// Use of units that a shared ledger has granted.
    pub(crate) share: Option<ShareUse>,
}

/// Usage figures of one day and model.
pub(crate) struct Figures {
    pub(crate) day: Day,
    pub(crate) model: String,
    pub(crate) figures: UsageFigures,
}

impl PendingBatch {
    /// Adds a record, which must be later than those added before.
    pub(crate) fn add(&mut self, record: Record<'_>) {
        match record {
            Record::Count { key, change } => {
                self.add_change(&key, &change);
                for ChangeBeside { key, change } in &change.further.beside {
                    self.add_change(key, change);
                }
            }
            Record::Usage(entry) => {
                let UsageEntry { day, closes, keeps_row, event } = *entry;
                let Some(key) = &event.key_id else { return };
                let subject = self.subject(key);
                subject.open -= i64::from(closes);
                let model = event.model.as_deref().unwrap_or_default();
                *subject.figures(day, model) += UsageFigures::from(&event);
                if keeps_row {
                    self.requests.extend(RequestRecord::new(0, event));
                }
            }
            Record::Commit(_) | Record::Rotated => return,
        }
        self.records += 1;
    }

    fn add_change(&mut self, key: &CounterKey, change: &CountChange) {
        let subject = self.subject(&key.subject);
        subject.count(key.quota, change.origin).add(&change.into());
        subject.open += i64::from(change.open);
        subject.opened_on = subject.opened_on.max(change.further.opened_on);
    }

    fn subject(&mut self, id: &KeyId) -> &mut Subject {
        self.subjects.entry(id.clone()).or_default()
    }

    /// Adds a later batch.
    pub(crate) fn append(&mut self, later: Self) {
        self.records += later.records;
        for (id, added) in later.subjects {
            let subject = self.subjects.entry(id).or_default();
            for (quota, origin, delta) in &added.counts {
                subject.count(*quota, *origin).add(delta);
            }
            for Figures { day, model, figures } in added.figures {
                *subject.figures(day, &model) += figures;
            }
            subject.open += added.open;
            subject.opened_on = subject.opened_on.max(added.opened_on);
        }
        self.requests.extend(later.requests);
        self.position = later.position.or(self.position);
    }

    /// Returns whether there are changes of this subject.
    pub(crate) fn has(&self, id: &KeyId) -> bool {
        self.subjects.contains_key(id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// Returns the number of subjects with changes.
    pub(super) fn subjects_len(&self) -> usize {
        self.subjects.len()
    }

    pub(crate) fn subjects(&self) -> impl Iterator<Item = (&KeyId, &Subject)> {
        self.subjects.iter()
    }
}

impl Subject {
    /// Returns the last day on which the subject was used. That of a period longer than a day is its first one, unless
    /// a request began in it.
    pub(crate) fn last_day(&self) -> Option<Day> {
        let counts = self.counts.iter().map(|(_, origin, _)| origin.day);
        counts.chain(self.figures.iter().map(|figures| figures.day)).chain(self.opened_on).max()
    }
}

// Linear search from the end: a subject has few days and models, and nearly always the last one matches.
impl Subject {
    fn count(&mut self, quota: Quota, origin: Origin) -> &mut Delta {
        let is_same = |count: &(Quota, Origin, Delta)| count.1 == origin && count.0 == quota;
        let at = self.counts.iter().rposition(is_same).unwrap_or_else(|| {
            self.counts.push((quota, origin, Delta::default()));
            self.counts.len() - 1
        });
        &mut self.counts[at].2
    }

    fn figures(&mut self, day: Day, model: &str) -> &mut UsageFigures {
        let find = |figures: &[Figures], model: &str| {
            figures.iter().rposition(|found| found.day == day && found.model == model)
        };
        let mut model = model;
        let mut at = find(&self.figures, model);
        if at.is_none() && !model.is_empty() && self.models_of(day) >= MAX_MODELS_PER_DAY {
            model = OTHER_MODELS;
            at = find(&self.figures, model);
        }
        let at = at.unwrap_or_else(|| {
            let (model, figures) = (model.to_owned(), UsageFigures::default());
            self.figures.push(Figures { day, model, figures });
            self.figures.len() - 1
        });
        &mut self.figures[at].figures
    }

    fn models_of(&self, day: Day) -> usize {
        let named = |figures: &&Figures| {
            figures.day == day && !["", OTHER_MODELS].contains(&&*figures.model)
        };
        self.figures.iter().filter(named).count()
    }
}

impl Delta {
    fn add(&mut self, later: &Self) {
        self.used = self.used.saturating_add(later.used);
        self.refunded = self.refunded.saturating_add(later.refunded);
        self.last_used_at = self.last_used_at.max(later.last_used_at);
        self.granted = later.granted.or(self.granted);
        if let Some(ShareUse { spent, returned }) = later.share {
            let share = self.share.get_or_insert(ShareUse { spent: 0, returned: 0 });
            share.spent = share.spent.max(spent);
            share.returned = share.returned.saturating_add(returned);
        }
    }
}

impl From<&CountChange> for Delta {
    fn from(change: &CountChange) -> Self {
        Self {
            used: change.used,
            refunded: i64::try_from(change.refunded).unwrap_or(i64::MAX),
            last_used_at: change.used_at,
            granted: change.granted,
            share: change.further.share,
        }
    }
}
