//! Sequence of processes on one disk.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use super::{
    COUNTERS, Random, SimClock, SimLedger,
    disk::Faults,
    key,
    traffic::{Events, Traffic},
};
use crate::{
    clock::Calendar,
    store::{
        counter::Origin,
        engine::{
            Durability, Engine, EngineOptions, Recovery,
            queue::{self, Job, Queue},
            writer::Checkpointer,
        },
    },
};

/// 2026-11-22T12:00:00Z.
const NOON: u64 = 1_795_348_800;
const DAY: u64 = 86_400_000;

/// End of the process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    Kill,
    LossOfPower,
}

/// State of one process.
struct Life<L: SimLedger> {
    engine: Arc<Engine>,
    queue: Arc<Queue<L>>,
    checkpointer: Checkpointer<L>,
}

pub(super) struct World<L: SimLedger> {
    random: Random,
    clock: SimClock,
    faults: Faults,
    durability: Durability,
    boot: u32,
    life: Option<Life<L>>,
    /// Counter that is being reset, and its epoch before.
    resetting: Option<(usize, u32)>,
    /// Not locked while the writer runs, as requests arrive meanwhile.
    traffic: Arc<Mutex<Traffic>>,
    traced: bool,
}

impl<L: SimLedger> World<L> {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let durability = if random.below(3) == 0 { Durability::Power } else { Durability::Process };
        let (clock, faults) = (SimClock::at(NOON * 1000), Faults::default());
        let others = Random(random.next());
        let traffic = Traffic::new(others, clock.clone(), faults.clone(), durability);
        let mut world = Self {
            random,
            clock,
            faults,
            durability,
            boot: 1,
            life: None,
            resetting: None,
            traffic: Arc::new(Mutex::new(traffic)),
            traced: std::env::var_os("TOWER_QUOTA_SEED").is_some(),
        };
        let ledger = world.create_ledger();
        world.start(ledger);
        world
    }

    /// Creates the ledger. Before each of its commits, requests arrive and the disk may fail.
    fn create_ledger(&self) -> L {
        let (traffic, faults) = (self.traffic.clone(), self.faults.clone());
        let keys: Vec<_> = (0..COUNTERS).map(|counter| key(counter).subject).collect();
        L::create(&keys, move || traffic.lock().unwrap().meanwhile() && !faults.breaks_commits())
    }

    fn start(&mut self, mut ledger: L) {
        let boot = self.boot.to_string();
        let disk = Box::new(self.faults.disk.clone());
        let recovery = Recovery::read::<L>(ledger.tables(), &*disk, None, Some(&boot));
        let Ok(recovery) = recovery else { panic!("the journal cannot be read") };
        assert_eq!(recovery.flaws().count(), 0, "no flaw that power does not explain");
        let Ok(journal) = recovery.start(&mut ledger, disk, Some(&boot)) else {
            panic!("the journal cannot be applied")
        };
        let options = EngineOptions {
            calendar: Calendar::utc(),
            clock: Arc::new(self.clock.clone()),
            durability: self.durability,
            retention_days: 0,
        };
        let engine = Arc::new(Engine::new(options, journal));
        load_counters(&engine, &ledger);
        // The process may have ended between the commit of a reset and its result.
        if let Some((number, epoch)) = self.resetting.take()
            && engine.counter(&key(number)).unwrap().count().epoch > epoch
        {
            self.traffic().oracle.reset(number);
        }
        self.traffic().begin(engine.clone());
        let queue = Arc::new(engine.queue());
        let checkpointer = Checkpointer::new(engine.clone(), queue.clone(), ledger);
        self.life = Some(Life { engine, queue, checkpointer });
    }

    fn life(&self) -> &Life<L> {
        self.life.as_ref().unwrap()
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().expect("an assertion fails while the writer is at work")
    }

    pub(super) fn step(&mut self) {
        let choice = self.random.below(100);
        if self.traced {
            let (traffic, broken) = (self.traffic(), self.is_broken());
            eprintln!("{choice} broken {broken} {:?} {:?}", traffic.events, traffic.oracle);
        }
        match choice {
            0..28 => self.traffic().reserve(),
            28..34 => self.traffic().reserve_several(),
            34 => self.traffic().crowd(),
            35..59 => self.traffic().respond(),
            59 => self.traffic().respond_to_all(),
            60..63 => self.traffic().leave(),
            63..69 => self.traffic().sync(),
            69..71 => self.life.as_mut().unwrap().checkpointer.collect(),
            71..79 => self.turn(VecDeque::new()),
            79..85 => self.pass_time(),
            85..87 => self.reset(),
            87..89 => self.traffic().change_limit(),
            89..91 => self.traffic().check_counts(),
            91 => self.rotate(),
            92 => self.evict(),
            93..96 => self.faults.break_something(&mut self.random),
            96..98 => self.kill(),
            98 => self.lose_power(),
            _ => self.close(),
        }
    }

    /// Repairs all faults, and checks the counts in memory and in the tables.
    pub(super) fn end(&mut self) {
        self.traffic().check_counts();
        self.traffic().cease();
        self.faults.heal();
        self.turn(VecDeque::new());
        self.turn(VecDeque::new());
        let Life { engine, checkpointer, .. } = self.life();
        let tables = checkpointer.ledger().tables();
        for key in (0..COUNTERS).map(key) {
            let count = engine.counter(&key).unwrap().count();
            let written = L::load(tables, &key, count.day);
            assert_eq!(written.used, count.used, "the tables hold what memory does");
        }
        let recorded = L::requests(tables);
        let traffic = self.traffic();
        let events = if traffic.has_recorder { traffic.events } else { Events::default() };
        assert!(
            (events.least..=events.most).contains(&recorded),
            "{recorded} events of {events:?}"
        );
    }

    fn turn(&mut self, jobs: VecDeque<Job<L>>) {
        self.traffic().oracle.begin_checkpoint();
        self.life.as_mut().unwrap().checkpointer.turn(jobs);
        let mut traffic = self.traffic();
        let death = traffic.death.take();
        if self.life().engine.is_open().is_ok() {
            traffic.oracle.checkpointed();
        }
        drop(traffic);
        death.into_iter().for_each(|death| self.die_of(death));
    }

    fn rotate(&mut self) {
        // A failure is recorded by the journal itself.
        if !self.life().engine.journal.has_failed() {
            let _ = self.life().engine.journal.rotate();
        }
    }

    /// Evicts idle counters while the clock is ahead, and loads them again once it is not.
    fn evict(&mut self) {
        self.turn(VecDeque::new());
        if self.is_broken() {
            return;
        }
        let now = self.clock.0.fetch_add(3 * DAY, Ordering::Relaxed);
        let Life { engine, checkpointer, .. } = self.life();
        engine.evict_idle_counters();
        self.clock.0.store(now, Ordering::Relaxed);
        load_counters(engine, checkpointer.ledger());
    }

    fn pass_time(&mut self) {
        let now = self.clock.0.load(Ordering::Relaxed);
        let then = match self.random.below(20) {
            0 => now + DAY,
            1 => now - DAY.min(now - NOON * 1000 / 2),
            2 => now - self.random.below(3_600_000),
            3..8 => now + self.random.below(DAY / 4),
            _ => now + self.random.below(3000),
        };
        self.clock.0.store(then, Ordering::Relaxed);
    }

    fn reset(&mut self) {
        let number = self.random.pick(COUNTERS);
        // A new day must not be taken for a reset.
        self.traffic().check_counts();
        let engine = self.life().engine.clone();
        let (counter, day) = (engine.counter(&key(number)).unwrap(), engine.today());
        let before = counter.count().origin();
        self.resetting = Some((number, before.epoch));
        let resetting = counter.clone();
        let (job, reset) = queue::job::<L, _>(
            move |tables| L::reset(tables, &key(number), day),
            move |epoch| resetting.reset(|_| Origin { day, epoch: *epoch }),
        );
        self.turn(VecDeque::from([job]));
        let mut reset = std::pin::pin!(reset);
        let mut cx = Context::from_waker(Waker::noop());
        let mut done = reset.as_mut().poll(&mut cx);
        while done.is_pending() {
            // Its commit is in doubt.
            self.faults.heal();
            self.turn(VecDeque::new());
            done = reset.as_mut().poll(&mut cx);
        }
        let Poll::Ready(done) = done else { unreachable!("it is not pending") };
        if self.resetting.take().is_none() {
            // The process has ended meanwhile.
            return;
        }
        let after = counter.count().origin();
        assert_eq!(
            done.is_ok(),
            after != before,
            "it is reset if and only if the caller learns it"
        );
        if done.is_ok() {
            self.traffic().oracle.reset(number);
        }
    }

    fn is_broken(&self) -> bool {
        self.faults.is_set() || self.life().engine.is_open().is_err()
    }

    fn die_of(&mut self, death: Death) {
        match death {
            Death::Kill => self.kill(),
            Death::LossOfPower => self.lose_power(),
        }
    }

    fn die(&mut self) -> L {
        self.traffic().break_off();
        self.faults.heal();
        self.life.take().unwrap().checkpointer.into_ledger()
    }

    fn kill(&mut self) {
        let ledger = self.die();
        self.traffic().oracle.end_process();
        self.start(ledger);
    }

    fn lose_power(&mut self) {
        let ledger = self.die();
        let random = &mut self.random;
        self.faults.disk.lose_power(|length| random.pick(length));
        self.boot += 1;
        let mut traffic = self.traffic();
        traffic.oracle.lose_power();
        traffic.events.least = traffic.events.synced;
        drop(traffic);
        self.start(ledger);
    }

    /// Shuts the process down, orderly unless the disk fails.
    fn close(&mut self) {
        self.traffic().cease();
        let in_order = !self.is_broken();
        let mut life = self.life.take().unwrap();
        life.queue.stop();
        life.checkpointer.turn(VecDeque::new());
        life.checkpointer.finish();
        self.faults.heal();
        let reboots = self.random.below(2) == 0;
        self.boot += u32::from(reboots);
        let mut traffic = self.traffic();
        traffic.events.lose_ends();
        match (in_order, reboots) {
            (true, _) => traffic.oracle.end_in_order(),
            (false, true) => traffic.oracle.end_boot(),
            (false, false) => traffic.oracle.end_process(),
        }
        drop(traffic);
        self.start(life.checkpointer.into_ledger());
    }
}

/// Loads the counters that are not in memory.
fn load_counters<L: SimLedger>(engine: &Engine, ledger: &L) {
    for key in (0..COUNTERS).map(key).filter(|key| engine.counter(key).is_none()) {
        let count = L::load(ledger.tables(), &key, engine.today());
        engine.insert_counter(key, count);
    }
}
