//! One life of a gateway after another, on one disk.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::Connection;

use super::{
    super::{
        Durability, SqliteOptions,
        core::{Core, Counter},
        quota, reset, rows, schema, start,
        writer::State,
    },
    disk::SimDisk,
    oracle::{Oracle, Period},
};
use crate::{
    clock::{Calendar, Clock},
    key::{DailyLimit, KeyId},
    store::{Actor, Charge, Outcome, QuotaSubject, Refund, UsageEvent, Verdict, counter::Origin},
};

const KEYS: usize = 3;
const LARGEST_LIMIT: u32 = 400;
/// 2026-11-22T12:00:00Z.
const NOON: u64 = 1_795_348_800;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }
}

#[derive(Clone)]
struct SimClock(Arc<AtomicU64>);

impl Clock for SimClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// A request that reached the upstream.
struct Request {
    charge: Box<dyn Charge>,
    period: Period,
    /// Whether the upstream has answered.
    is_answered: bool,
    is_returned: bool,
}

/// One process.
struct Life {
    core: Arc<Core>,
    state: State,
}

pub(super) struct World {
    random: Random,
    clock: SimClock,
    disk: SimDisk,
    durability: Durability,
    /// Set while commits fail.
    broken_file: Arc<AtomicBool>,
    boot: u32,
    life: Option<Life>,
    limits: [u32; KEYS],
    requests: Vec<Request>,
    oracle: Oracle,
    events: (u64, u64),
    traced: bool,
}

fn id(key: usize) -> KeyId {
    KeyId::from(["a", "b", "c"][key])
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let durability = if random.below(3) == 0 { Durability::Power } else { Durability::Process };
        let limits = [1, 1 + random.below(7) as u32, 1 + random.below(LARGEST_LIMIT.into()) as u32];
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
            events: (0, 0),
            traced: std::env::var_os("TOWER_QUOTA_SEED").is_some(),
        };
        world.start(connection);
        world
    }

    fn start(&mut self, connection: Connection) {
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

    fn life(&self) -> &Life {
        self.life.as_ref().unwrap()
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
            63..71 => self.life().core.journal.sync(),
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
                self.oracle.seen(period).under_way += 1;
                self.oracle.check(key, &standing);
                assert!(standing.used <= u64::from(self.limits[key]), "never one more");
                self.requests.push(Request {
                    charge,
                    period,
                    is_answered: false,
                    is_returned: false,
                });
            }
            Ok(Verdict::Exhausted(standing)) => {
                self.oracle.check(key, &standing);
                assert!(standing.used >= u64::from(self.limits[key]), "never one less");
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
            let seen = self.oracle.seen(request.period);
            seen.under_way -= 1;
            seen.provoked += u64::from(refund == Refund::UpToLimit);
            assert!(seen.provoked <= u64::from(LARGEST_LIMIT), "provoked refunds are bounded");
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
            let seen = self.oracle.seen(request.period);
            seen.under_way -= 1;
            seen.answered += 1;
        }
    }

    /// The request was refused, as its unit could not be written down.
    fn fail(&mut self, request: Request) {
        let seen = self.oracle.seen(request.period);
        seen.under_way -= u64::from(!request.is_returned);
        // What is in the journal counts again if the process ends before the next fold.
        seen.uncertain += 1;
    }

    /// A client leaves before its answer.
    fn leave(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let at = self.random.pick(self.requests.len());
        let request = self.requests.swap_remove(at);
        let seen = self.oracle.seen(request.period);
        if request.is_returned {
            seen.uncertain += 1;
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
        self.limits[key] = 1 + self.random.below(LARGEST_LIMIT.into()) as u32;
    }

    fn rotate(&mut self) {
        // A failure is known to the journal itself.
        if !self.life().core.journal.has_failed() {
            let _ = self.life().core.journal.renew();
        }
    }

    fn break_something(&mut self) {
        match self.random.below(5) {
            0 => self.disk.break_writes(self.random.pick(80)),
            1 => self.disk.break_syncs(),
            2 => self.broken_file.store(true, Ordering::Relaxed),
            _ => self.heal(),
        }
    }

    fn heal(&mut self) {
        self.disk.heal();
        self.broken_file.store(false, Ordering::Relaxed);
    }

    /// The process ends at once; what it was about to do is not done.
    fn die(&mut self) -> Connection {
        for request in self.requests.drain(..) {
            if request.is_returned {
                self.oracle.seen(request.period).uncertain += 1;
            }
            std::mem::forget(request.charge);
        }
        let life = self.life.take().unwrap();
        self.heal();
        // Events that only memory held are gone.
        self.events.0 = 0;
        life.state.into_connection()
    }

    fn kill(&mut self) {
        let was_broken = self.is_broken();
        let events = self.events.0;
        let connection = self.die();
        if !was_broken {
            self.events.0 = events;
        }
        self.oracle.end_process(0);
        self.start(connection);
    }

    fn lose_power(&mut self) {
        let connection = self.die();
        let random = &mut self.random;
        self.disk.lose_power(|length| random.pick(length));
        self.boot += 1;
        self.oracle.end_process(self.ahead());
        self.start(connection);
    }

    /// The process ends in order, if the disk lets it.
    fn close(&mut self) {
        while !self.requests.is_empty() {
            self.leave();
        }
        let in_order = !self.is_broken();
        let mut life = self.life.take().unwrap();
        life.core.queue.stop();
        life.state.turn(VecDeque::new());
        life.state.finish();
        self.heal();
        self.boot += u32::from(self.random.below(2) == 0);
        self.oracle.end_process(if in_order { 0 } else { self.ahead() });
        if !in_order {
            self.events.0 = 0;
        }
        self.start(life.state.into_connection());
    }

    fn is_broken(&self) -> bool {
        let file = self.broken_file.load(Ordering::Relaxed);
        self.disk.is_broken() || file || self.life().core.is_open().is_err()
    }

    /// The most that may be charged ahead.
    fn ahead(&self) -> u64 {
        match self.durability {
            Durability::Power => 0,
            Durability::Process => u64::from(LARGEST_LIMIT) / 16,
        }
    }
}
