//! One life of a gateway after another, on one disk.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use rusqlite::Connection;

use super::{
    super::{
        Durability, SqliteOptions,
        core::{Core, Counter},
        quota, reset, rows, schema, start,
        writer::State,
    },
    chance::{Random, SimClock},
    disk::SimDisk,
    oracle::{Oracle, Period},
};
use crate::{
    clock::{Calendar, Clock},
    key::{DailyLimit, KeyId},
    store::{Actor, Charge, Outcome, QuotaSubject, Refund, UsageEvent, Verdict, counter::Origin},
};

pub(super) const KEYS: usize = 3;
/// 0 is among them.
const LARGEST_LIMIT: u32 = 400;
/// 2026-11-22T12:00:00Z.
const NOON: u64 = 1_795_348_800;

/// A request that reached the upstream.
pub(super) struct Request {
    pub(super) charge: Box<dyn Charge>,
    pub(super) period: Period,
    is_unlimited: bool,
    /// Whether the upstream has answered.
    is_answered: bool,
    pub(super) is_returned: bool,
}

/// One process.
pub(super) struct Life {
    pub(super) core: Arc<Core>,
    pub(super) state: State,
}

pub(super) struct World {
    pub(super) random: Random,
    clock: SimClock,
    pub(super) disk: SimDisk,
    pub(super) durability: Durability,
    /// Set while commits fail.
    pub(super) broken_file: Arc<AtomicBool>,
    pub(super) boot: u32,
    pub(super) life: Option<Life>,
    limits: [u32; KEYS],
    pub(super) requests: Vec<Request>,
    pub(super) oracle: Oracle,
    /// Units that came back to a key, by which it may be charged further ahead until that is synced.
    pub(super) came_back: [u64; KEYS],
    pub(super) events: (u64, u64),
    traced: bool,
}

fn id(key: usize) -> KeyId {
    KeyId::from(["a", "b", "c"][key])
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let durability = if random.below(3) == 0 { Durability::Power } else { Durability::Process };
        let large = random.below(u64::from(LARGEST_LIMIT) + 1) as u32;
        let limits = [1, 1 + random.below(7) as u32, large];
        let broken_file = Arc::new(AtomicBool::new(false));
        let connection = Connection::open_in_memory().unwrap();
        assert!(schema::migrate(&connection).is_ok());
        for key in 0..KEYS {
            let sql = "INSERT INTO api_keys (id, key, key_hash) VALUES (?1, ?1, ?1)";
            connection.execute(sql, [id(key).as_str()]).unwrap();
        }
        let broken = broken_file.clone();
        connection.commit_hook(Some(move || broken.load(Ordering::Relaxed))).unwrap();
        let mut world = Self {
            random,
            clock: SimClock(Arc::new(AtomicU64::new(NOON * 1000))),
            disk: SimDisk::default(),
            durability,
            broken_file,
            boot: 1,
            life: None,
            limits,
            requests: Vec::new(),
            oracle: Oracle::default(),
            came_back: [0; KEYS],
            events: (0, 0),
            traced: std::env::var_os("TOWER_QUOTA_SEED").is_some(),
        };
        world.start(connection);
        world
    }

    pub(super) fn start(&mut self, connection: Connection) {
        let options = SqliteOptions::new("simulated")
            .calendar(Calendar::utc())
            .clock(self.clock.clone())
            .durability(self.durability)
            .boot(self.boot.to_string());
        let journal = start::begin(&connection, Box::new(self.disk.clone()), &options).unwrap();
        let core = Arc::new(Core::new(&options, journal));
        let state = State::new(core.clone(), connection);
        self.life = Some(Life { core, state });
        self.check_counts();
    }

    pub(super) fn life(&self) -> &Life {
        self.life.as_ref().unwrap()
    }

    fn sync(&mut self) {
        self.life().core.journal.sync();
        if !self.life().core.journal.has_failed() {
            self.oracle.synced();
            self.came_back = [0; KEYS];
        }
    }

    fn turn(&mut self) {
        self.life.as_mut().unwrap().state.turn(VecDeque::new());
    }

    pub(super) fn step(&mut self) {
        let choice = self.random.below(100);
        if self.traced {
            eprintln!(
                "{choice} broken {} events {:?} {:?}",
                self.is_broken(),
                self.events,
                self.oracle
            );
        }
        match choice {
            0..35 => self.reserve(),
            35..60 => self.answer(),
            60..63 => self.leave(),
            63..71 => self.sync(),
            71..79 => self.turn(),
            79..85 => self.pass_time(),
            85..87 => self.reset(),
            87..89 => self.change_limit(),
            89..91 => self.check_counts(),
            91..93 => self.rotate(),
            93..96 => self.break_something(),
            96..98 => self.kill(),
            98 => self.lose_power(),
            _ => self.close(),
        }
    }

    /// Everything works again, and all is counted as it was seen, in memory and in the file.
    pub(super) fn end(&mut self) {
        while !self.requests.is_empty() {
            self.leave();
        }
        self.heal();
        self.turn();
        self.turn();
        self.check_counts();
        for key in 0..KEYS {
            let counter = self.counter(key);
            let (count, connection) = (counter.count(), self.life().state.connection());
            let file = rows::read_count(connection, &id(key), count.day).unwrap();
            assert_eq!(file.used, count.used, "what is in the file is what is in memory");
        }
        let sql = "SELECT coalesce(sum(requests), 0) FROM usage_totals";
        let told: u64 =
            self.life().state.connection().query_row(sql, [], |row| row.get(0)).unwrap();
        let (least, most) = self.events;
        assert!((least..=most).contains(&told), "{told} events of {least} to {most}");
    }

    fn counter(&self, key: usize) -> Arc<Counter> {
        let Life { core, state } = self.life();
        let today = core.today();
        let load = || {
            Arc::new(Counter::new(rows::read_count(state.connection(), &id(key), today).unwrap()))
        };
        core.counters.entry(id(key)).or_insert_with(load).clone()
    }

    fn subject(&self, key: usize) -> QuotaSubject {
        QuotaSubject::new(id(key), DailyLimit::new(self.limits[key]).unwrap())
    }

    fn check_counts(&mut self) {
        for key in 0..KEYS {
            let (counter, subject) = (self.counter(key), self.subject(key));
            let standing = counter.standing(&subject, &self.life().core.calendar, self.clock.now());
            self.oracle.check(key, &standing);
        }
    }

    fn reserve(&mut self) {
        let key = self.random.pick(KEYS);
        let (counter, subject, now) = (self.counter(key), self.subject(key), self.clock.now());
        let is_open = self.life().core.is_open().is_ok();
        match quota::reserve(&self.life().core.clone(), counter, &subject, now) {
            Ok(Verdict::Admitted { charge, standing }) => {
                assert!(is_open, "nothing is admitted once a failure is known");
                let period = self.oracle.period(key, standing.day);
                let limit = self.limits[key];
                let seen = self.oracle.seen(period);
                (seen.under_way, seen.is_charged) = (seen.under_way + 1, true);
                // Without a limit, any number may be given back.
                seen.limit = seen.limit.max(if limit == 0 { u64::MAX } else { limit.into() });
                self.oracle.check(key, &standing);
                assert!(limit == 0 || standing.used <= u64::from(limit), "never one more");
                self.requests.push(Request {
                    charge,
                    period,
                    is_unlimited: limit == 0,
                    is_answered: false,
                    is_returned: false,
                });
            }
            Ok(Verdict::Exhausted(standing)) => {
                self.oracle.check(key, &standing);
                let limit = self.limits[key];
                assert!(limit > 0 && standing.used >= u64::from(limit), "never one less");
            }
            Err(_) => assert!(!is_open || self.is_broken(), "refused without a reason"),
        }
    }

    /// The upstream has answered one of the requests.
    fn answer(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let at = self.random.pick(self.requests.len());
        let mut request = self.requests.swap_remove(at);
        if !request.is_answered {
            request.is_answered = true;
            self.refund(&mut request);
        }
        let mut cx = Context::from_waker(Waker::noop());
        match request.charge.poll_committed(&mut cx) {
            Poll::Pending => self.requests.push(request),
            Poll::Ready(Err(_)) => self.fail(request),
            Poll::Ready(Ok(())) => self.settle(request),
        }
    }

    /// Gives the unit back, or does not, as the policy might decide.
    fn refund(&mut self, request: &mut Request) {
        let refund = match self.random.below(6) {
            0 => Refund::Always,
            1 => Refund::UpToLimit,
            _ => return,
        };
        if request.charge.refund(refund) {
            request.is_returned = true;
            self.came_back[request.period.key] += 1;
            let seen = self.oracle.seen(request.period);
            seen.under_way -= 1;
            seen.provoked += u64::from(refund == Refund::UpToLimit);
            seen.unsynced_provoked += u64::from(refund == Refund::UpToLimit);
            assert!(seen.provoked <= seen.limit, "provoked refunds are bounded");
        }
    }

    fn settle(&mut self, mut request: Request) {
        let event = (self.random.below(2) == 0).then(|| self.event(request.period.key));
        if request.charge.settle(event.as_ref()).is_err() {
            return self.fail(request);
        }
        if event.is_some() {
            self.events = (self.events.0 + 1, self.events.1 + 1);
        }
        if !request.is_returned {
            // Nothing is charged ahead for a key without a limit.
            let unsynced = self.durability == Durability::Process && request.is_unlimited;
            let seen = self.oracle.seen(request.period);
            seen.under_way -= 1;
            seen.answered += 1;
            seen.unsynced += u64::from(unsynced);
        }
    }

    /// The request was refused, as its unit could not be written down.
    fn fail(&mut self, request: Request) {
        self.came_back[request.period.key] += 1;
        let seen = self.oracle.seen(request.period);
        seen.under_way -= u64::from(!request.is_returned);
        // What is in the journal counts again if the process ends before the next fold.
        seen.unsettled += 1;
    }

    /// A client leaves before its answer.
    pub(super) fn leave(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let at = self.random.pick(self.requests.len());
        let request = self.requests.swap_remove(at);
        let seen = self.oracle.seen(request.period);
        if request.is_returned {
            seen.unsettled += 1;
        } else {
            seen.under_way -= 1;
            seen.dropped += 1;
        }
    }

    fn event(&self, key: usize) -> UsageEvent {
        let mut event = UsageEvent::new(self.clock.now());
        event.key_id = Some(id(key));
        event.outcome = Outcome::Succeeded;
        event
    }

    fn pass_time(&mut self) {
        const DAY: u64 = 86_400_000;
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
        let (core, counter) = (self.life().core.clone(), self.counter(key));
        let (job, reset) = reset::job(core, counter.clone(), id(key), Actor::default());
        let before = counter.count().origin();
        self.life.as_mut().unwrap().state.turn(VecDeque::from([job]));
        let mut reset = std::pin::pin!(reset);
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(answer) = reset.as_mut().poll(&mut cx) else {
            unreachable!("the turn has run or dropped the job");
        };
        let after: Origin = counter.count().origin();
        assert_eq!(answer.is_ok(), after != before, "it is reset if and only if that is told");
        if answer.is_ok() {
            self.oracle.reset(key, after.day);
        }
    }

    fn change_limit(&mut self) {
        let key = self.random.pick(KEYS);
        self.limits[key] = self.random.below(u64::from(LARGEST_LIMIT) + 1) as u32;
    }
}
