use std::{
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use super::{SqliteStore, core::Core, ops::Op, queue::Commit, rows, unavailable};
use crate::{
    error::StoreError,
    key::KeyId,
    store::{
        Charge, QuotaStore, QuotaSubject, Refund, Standing, StoreFuture, Verdict,
        counter::{DayCounter, Origin},
    },
};

struct SqliteCharge {
    core: Arc<Core>,
    counter: Arc<DayCounter>,
    subject: QuotaSubject,
    origin: Option<Origin>,
    commit: Commit,
}

impl QuotaStore for SqliteStore {
    fn reserve(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<Verdict> {
        if let Some(counter) = self.0.core.counter(&subject.id) {
            return StoreFuture::ready(reserve(&self.0.core, counter, subject, at));
        }
        let (store, subject) = (self.clone(), subject.clone());
        StoreFuture::pending(async move {
            let counter = store.load_counter(&subject.id, at).await?;
            reserve(&store.0.core, counter, &subject, at)
        })
    }

    fn standing(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<Standing> {
        let (store, subject) = (self.clone(), subject.clone());
        StoreFuture::pending(async move {
            let counter = store.load_counter(&subject.id, at).await?;
            Ok(counter.standing(&subject, &store.0.core.calendar, at))
        })
    }
}

impl SqliteStore {
    /// The subject's counter, read from the file the first time. It stays from then on, so nothing
    /// can have been counted between the reading and its use.
    pub(super) async fn load_counter(
        &self,
        id: &KeyId,
        at: SystemTime,
    ) -> Result<Arc<DayCounter>, StoreError> {
        let core = &self.0.core;
        if let Some(counter) = core.counter(id) {
            return Ok(counter);
        }
        let (key_id, day) = (id.clone(), core.calendar.window(at).day);
        let count = self
            .look_up(move |connection| {
                rows::read_count(connection, &key_id, day).map_err(unavailable)
            })
            .await?;
        let new = || Arc::new(DayCounter::new(count));
        Ok(core.counters.entry(id.clone()).or_insert_with(new).clone())
    }
}

fn reserve(
    core: &Arc<Core>,
    counter: Arc<DayCounter>,
    subject: &QuotaSubject,
    at: SystemTime,
) -> Result<Verdict, StoreError> {
    let (taken, standing) = counter.reserve(subject, &core.calendar, at, |origin| {
        let id = subject.id.clone();
        let commit = core.queue.push(Op::Charge { id, origin, at })?;
        Ok::<_, StoreError>((origin, commit))
    })?;
    let Some((origin, commit)) = taken else {
        return Ok(Verdict::Exhausted(standing));
    };
    let (core, subject, origin) = (core.clone(), subject.clone(), Some(origin));
    let charge = Box::new(SqliteCharge { core, counter, subject, origin, commit });
    Ok(Verdict::Admitted { charge, standing })
}

impl Charge for SqliteCharge {
    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        self.commit.poll(cx)
    }

    fn refund(&mut self, refund: Refund) -> bool {
        let Some(origin) = self.origin.take() else {
            return false;
        };
        let capped = refund == Refund::UpToLimit;
        self.counter.refund(origin, &self.subject, refund, || {
            // A unit that was not written is not charged: what is counted now is somebody else's.
            if self.commit.has_failed() {
                return false;
            }
            let id = self.subject.id.clone();
            let pushed = self.core.queue.push(Op::Refund { id, origin, capped });
            pushed.map(|commit| self.commit = commit).is_ok()
        })
    }
}
