//! One life of a gateway after another, on one disk.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use rusqlite::Connection;

use super::{
    super::{
        Durability, SqliteOptions,
        core::{Core, Counter},
        jobs::Job,
        reset, rows, schema, start,
        writer::State,
    },
    KEYS,
    chance::{Random, SimClock},
    faults::Faults,
    id,
    traffic::Traffic,
};
use crate::{
    clock::Calendar,
    store::{Actor, KeyChange, KeyEdit, KeyRef, engine::counter::Origin},
};

/// 2026-11-22T12:00:00Z.
const NOON: u64 = 1_795_348_800;
const DAY: u64 = 86_400_000;

/// One process.
pub(super) struct Life {
    pub(super) core: Arc<Core>,
    pub(super) state: State,
}

pub(super) struct World {
    pub(super) random: Random,
    clock: SimClock,
    pub(super) faults: Faults,
    durability: Durability,
    pub(super) boot: u32,
    pub(super) life: Option<Life>,
    /// Not held while the writer is at work, as requests come meanwhile.
    traffic: Arc<Mutex<Traffic>>,
    traced: bool,
}

impl World {
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
            traffic: Arc::new(Mutex::new(traffic)),
            traced: std::env::var_os("TOWER_QUOTA_SEED").is_some(),
        };
        let connection = world.database();
        world.start(connection);
        world
    }

    /// Before each of its commits requests come, and the disk may fail.
    fn database(&self) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        assert!(schema::migrate(&connection).is_ok());
        for key in 0..KEYS {
            let sql = "INSERT INTO api_keys (id, key, key_hash) VALUES (?1, ?1, ?1)";
            connection.execute(sql, [id(key).as_str()]).unwrap();
        }
        let (traffic, faults) = (self.traffic.clone(), self.faults.clone());
        let fails = move || !traffic.lock().unwrap().meanwhile() || faults.breaks_commits();
        connection.commit_hook(Some(fails)).unwrap();
        connection
    }

    pub(super) fn start(&mut self, connection: Connection) {
        let options = SqliteOptions::new("simulated")
            .calendar(Calendar::utc())
            .clock(self.clock.clone())
            .durability(self.durability)
            .boot(self.boot.to_string());
        let disk = Box::new(self.faults.disk.clone());
        let journal = start::begin(&connection, disk, &options, None).unwrap().journal;
        let core = Arc::new(Core::new(&options, journal));
        for key in 0..KEYS {
            let count = rows::read_count(&connection, &id(key), core.today()).unwrap();
            core.counters.insert(id(key), Arc::new(Counter::new(count)));
        }
        self.traffic().begin(core.clone());
        self.life = Some(Life { state: State::new(core.clone(), connection, None), core });
    }

    pub(super) fn life(&self) -> &Life {
        self.life.as_ref().unwrap()
    }

    pub(super) fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().expect("an assertion fails while the writer is at work")
    }

    pub(super) fn step(&mut self) {
        let choice = self.random.below(100);
        if self.traced {
            let (traffic, broken) = (self.traffic(), self.is_broken());
            eprintln!("{choice} broken {broken} {:?} {:?}", traffic.events, traffic.oracle);
        }
        match choice {
            0..34 => self.traffic().reserve(),
            34 => self.traffic().crowd(),
            35..59 => self.traffic().answer(),
            59 => self.traffic().answer_all(),
            60..63 => self.traffic().leave(),
            63..71 => self.traffic().sync(),
            71..79 => self.turn(VecDeque::new()),
            79..85 => self.pass_time(),
            85..87 => self.reset(),
            87..89 => self.traffic().change_limit(),
            89..91 => self.traffic().check_counts(),
            91..93 => self.rotate(),
            93..96 => self.faults.break_something(&mut self.random),
            96..98 => self.kill(),
            98 => self.lose_power(),
            _ => self.close(),
        }
    }

    /// Everything works again, and all is counted as it was seen, in memory and in the file.
    pub(super) fn end(&mut self) {
        self.traffic().check_counts();
        self.traffic().cease();
        self.faults.heal();
        self.turn(VecDeque::new());
        self.turn(VecDeque::new());
        let Life { core, state } = self.life();
        for key in 0..KEYS {
            let count = core.counter(&id(key)).unwrap().count();
            let file = rows::read_count(state.connection(), &id(key), count.day).unwrap();
            assert_eq!(file.used, count.used, "what is in the file is what is in memory");
        }
        let sql = "SELECT coalesce(sum(requests), 0) FROM usage_totals";
        let told: u64 = state.connection().query_row(sql, [], |row| row.get(0)).unwrap();
        let events = self.traffic().events;
        assert!((events.least..=events.most).contains(&told), "{told} events of {events:?}");
    }

    fn turn(&mut self, jobs: VecDeque<Job>) {
        self.traffic().oracle.begin_fold();
        self.life.as_mut().unwrap().state.turn(jobs);
        let mut traffic = self.traffic();
        let death = traffic.death.take();
        if self.life().core.is_open().is_ok() {
            traffic.oracle.folded();
        }
        drop(traffic);
        death.into_iter().for_each(|death| self.die_of(death));
    }

    fn rotate(&mut self) {
        // A failure is known to the journal itself.
        if !self.life().core.journal.has_failed() {
            let _ = self.life().core.journal.rotate();
        }
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
        let key = self.random.pick(KEYS);
        // A day that has turned is no reset.
        self.traffic().check_counts();
        let core = self.life().core.clone();
        let counter = core.counter(&id(key)).unwrap();
        let named = KeyRef::new(id(key).as_str());
        let edit = KeyEdit::new(named, KeyChange::ResetUsage, Actor::default());
        let (job, reset) = reset::job(core, counter.clone(), id(key), edit);
        let before = counter.count().origin();
        self.turn(VecDeque::from([job]));
        let mut reset = std::pin::pin!(reset);
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(answer) = reset.as_mut().poll(&mut cx) else {
            unreachable!("the turn has run or dropped the job");
        };
        let after: Origin = counter.count().origin();
        assert_eq!(answer.is_ok(), after != before, "it is reset if and only if that is told");
        if answer.is_ok() {
            self.traffic().oracle.reset(key);
        }
    }
}
