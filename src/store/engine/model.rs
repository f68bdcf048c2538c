//! Tests of every interleaving of a few threads, with loom.
//!
//! `RUSTFLAGS="--cfg model" cargo test --lib --features full model`

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::{Duration, SystemTime},
};

use loom::{
    model,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::{
    journal::{Commit, CountChange, DatabaseId, Disk, Journal, Lsn, Record, Segment},
    pending::PendingBatch,
};
use crate::{
    clock::Calendar,
    key::Limit,
    store::{
        Demand, Refund,
        counter::{Count, CounterKey, LockedCounters, Origin, PeriodCounter},
    },
};

fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(12 * 3600)
}

fn origin() -> Origin {
    Origin { day: "1970-01-01".parse().unwrap(), epoch: 0 }
}

fn key() -> CounterKey {
    CounterKey::daily("alice".into())
}

fn counter() -> Arc<PeriodCounter> {
    Arc::new(PeriodCounter::new(key(), Count::new(origin().day)))
}

fn take_some(counter: &PeriodCounter, amount: u64, limit: u64) -> Option<Origin> {
    let record = |count: &Count, (): &mut ()| Ok::<_, ()>(count.origin());
    let limit = Limit::Units(limit);
    let demand = Demand::new("alice".into(), limit, noon()).amount(amount);
    counter.reserve(&demand, &Calendar::utc(), record).unwrap().0
}

fn take(counter: &PeriodCounter, limit: u64) -> Option<Origin> {
    take_some(counter, 1, limit)
}

fn give_back(counter: &PeriodCounter, limit: u64, taken: Origin) -> bool {
    let limit = Limit::Units(limit);
    counter.refund(taken, 1, limit, Refund::UpToLimit, |_, ()| true)
}

#[test]
fn model_of_concurrent_reservations_admits_exactly_the_limit() {
    model(|| {
        let counter = counter();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let counter = counter.clone();
                thread::spawn(move || take(&counter, 2).is_some())
            })
            .collect();
        let admitted = threads.into_iter().map(|thread| thread.join().unwrap());
        assert_eq!(admitted.filter(|admitted| *admitted).count(), 2);
    });
}

#[test]
fn model_of_amounts_admits_as_many_as_fit() {
    model(|| {
        let counter = counter();
        let threads: Vec<_> = [3, 3]
            .map(|amount| {
                let counter = counter.clone();
                thread::spawn(move || take_some(&counter, amount, 5).is_some())
            })
            .into();
        let admitted = threads.into_iter().map(|thread| thread.join().unwrap());
        assert_eq!(admitted.filter(|admitted| *admitted).count(), 1);
        assert_eq!(counter.count().used, 3);
    });
}

#[test]
fn model_of_reservations_on_two_counters_takes_both_or_none_and_never_hangs() {
    model(|| {
        let calendar = Calendar::utc();
        let counters = [counter(), counter()];
        let demand = |limit| Demand::new("alice".into(), Limit::Units(limit), noon());
        let threads: Vec<_> = [[0, 1], [1, 0]]
            .map(|order| {
                let counters = order.map(|index| counters[index].clone());
                // The first counter has one unit, the second has two.
                let demands = order.map(|index| demand([1, 2][index]));
                let calendar = calendar.clone();
                thread::spawn(move || {
                    let mut locked = LockedCounters::lock(&counters, &demands, &calendar).unwrap();
                    let is_admitted = locked.exhausted().is_empty();
                    if is_admitted {
                        locked.charge();
                    }
                    is_admitted
                })
            })
            .into();
        let admitted = threads.into_iter().map(|thread| thread.join().unwrap());
        assert_eq!(admitted.filter(|admitted| *admitted).count(), 1);
        assert_eq!(counters.map(|counter| counter.count().used), [1, 1]);
    });
}

#[test]
fn model_of_settling_during_a_reservation_loses_no_unit() {
    model(|| {
        let counter = counter();
        let taken = take_some(&counter, 3, 5).unwrap();
        let settling = counter.clone();
        let settle = thread::spawn(move || settling.settle(taken, 3, 1, |_, ()| ()));
        let admitted = take_some(&counter, 3, 5).is_some();
        assert!(settle.join().unwrap());
        assert_eq!(counter.count().used, if admitted { 4 } else { 1 });
    });
}

#[test]
fn model_refunded_units_are_admitted_exactly_once() {
    model(|| {
        let counter = counter();
        let other = counter.clone();
        let taker = thread::spawn(move || u64::from(take(&other, 1).is_some()));
        let mut kept = 0;
        if let Some(taken) = take(&counter, 1)
            && !give_back(&counter, 1, taken)
        {
            kept += 1;
        }
        kept += taker.join().unwrap();
        assert_eq!(counter.count().used, kept);
    });
}

#[test]
fn model_of_a_reset_keeps_late_refunds_away_from_the_new_count() {
    model(|| {
        let counter = counter();
        let taken = take(&counter, 2).unwrap();
        let (refunding, resetting) = (counter.clone(), counter.clone());
        let refund = thread::spawn(move || give_back(&refunding, 2, taken));
        let reset = thread::spawn(move || {
            resetting.reset(|count| count.after_reset(origin().day));
            take(&resetting, 2).is_some()
        });
        refund.join().unwrap();
        assert!(reset.join().unwrap());
        assert_eq!(counter.count().used, 1, "the unit that was taken after the reset");
    });
}

/// Disk whose syncs fail if `fails` is set.
#[derive(Clone, Copy)]
struct TestDisk {
    fails: bool,
}

impl Disk for TestDisk {
    fn segments(&self) -> io::Result<Vec<u64>> {
        Ok(Vec::new())
    }
    fn read(&self, _: u64) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }
    fn segment_length(&self) -> u64 {
        0
    }
    fn create(&self, _: u64, _: &[u8]) -> io::Result<Arc<dyn Segment>> {
        Ok(Arc::new(*self))
    }
    fn remove(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Segment for TestDisk {
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        if self.fails { Err(io::Error::other("test")) } else { Ok(()) }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn journal(fails: bool) -> Arc<Journal> {
    Arc::new(
        Journal::begin(Box::new(TestDisk { fails }), 1, DatabaseId::default(), Commit::default())
            .unwrap(),
    )
}

fn append(journal: &Journal) -> Lsn {
    let change = CountChange { used: 1, ..CountChange::of(origin()) };
    journal.append(Record::count(&key(), change)).unwrap()
}

/// Checks that a task that waits for a sync gets the result or is woken.
fn a_waiter_is_ready_or_woken(fails: bool) {
    let journal = journal(fails);
    let end = append(&journal);
    let syncing = journal.clone();
    let sync = thread::spawn(move || syncing.sync());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    let first = journal.poll_durable(end, &mut cx);
    sync.join().unwrap();
    match first {
        Poll::Ready(synced) => assert_eq!(synced.is_err(), fails),
        Poll::Pending => {
            assert!(woken.0.load(Ordering::SeqCst), "a lost wake-up");
            let Poll::Ready(synced) = journal.poll_durable(end, &mut cx) else {
                panic!("woken for nothing");
            };
            assert_eq!(synced.is_err(), fails);
        }
    }
}

#[test]
fn model_of_a_sync_loses_no_waiter() {
    model(|| a_waiter_is_ready_or_woken(false));
}

#[test]
fn model_of_a_failed_sync_wakes_every_waiter() {
    model(|| a_waiter_is_ready_or_woken(true));
}

#[test]
fn model_of_records_appended_during_a_sync_are_synced_or_due() {
    model(|| {
        let journal = journal(false);
        let appending = journal.clone();
        let append = thread::spawn(move || append(&appending));
        journal.sync();
        let end = append.join().unwrap();
        assert!(journal.is_durable(end) || journal.is_due(), "it is never synced");
    });
}

#[test]
fn model_of_a_new_segment_loses_no_record() {
    model(|| {
        let journal = journal(false);
        let appending = journal.clone();
        let append = thread::spawn(move || append(&appending));
        let used = |pending: &PendingBatch| {
            let counts = pending.subjects().flat_map(|(_, subject)| &subject.counts);
            counts.map(|(.., delta)| delta.used).sum::<i64>()
        };
        let before = used(&journal.take());
        journal.rotate().unwrap();
        append.join().unwrap();
        let after = journal.take();
        assert_eq!(before + used(&after), 1);
        assert_eq!(after.position.unwrap().segment, 2);
    });
}
