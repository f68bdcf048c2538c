//! Trips to the database for each key and day, over numbers of nodes, limits and ways to spread requests: the
//! [`Share`]s of the nodes over a model of the tables, in simulated time. It prints the tables of docs/scaling.md:
//! `cargo test --lib nightly_sweep -- --ignored --nocapture`.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::{Duration, Instant, SystemTime},
};

use super::{
    Mutation,
    tables::{Batch, News, Tables},
};
use crate::{
    key::Limit,
    store::{
        Demand,
        counter::Count,
        engine::{
            share::{ReportedLease, Share, ShareRequest, ShareResponse, ShareState, Step},
            simulation::Random,
        },
    },
};

/// Units of simulated time in a millisecond.
const MILLI: u64 = 1_000;
/// Time that a message takes between a node and the database.
const MESSAGE: u64 = 100;
/// Time that a statement holds the counter's row, and that its commit takes if it must be flushed.
const STATEMENT: u64 = 200;
const FLUSH: u64 = 2 * MILLI;
/// Time for which a statement may wait, as `statement_timeout` has it.
const STATEMENT_TIMEOUT: u64 = 250 * MILLI;
/// Interval of the checkpoints of a node that has spent units.
const CHECKPOINT: u64 = 500 * MILLI;
/// Interval at which a node looks for units that were not used for a while.
const IDLE_INTERVAL: u64 = 10_000 * MILLI;
/// Time after which a caller sends again what was not served.
const RETRY: u64 = 20 * MILLI;
const MAX_SIZE: i64 = 512;
const MINUTE: Duration = Duration::from_secs(60);
/// Number of days that are simulated for each figure, which is their median.
const DAYS: u64 = 9;

/// How requests are spread over nodes.
#[derive(Clone, Copy, PartialEq)]
enum Spread {
    Even,
    /// The n-th node gets `n^-1.5` times the requests of the first one.
    Zipf,
    /// One node gets 95 %.
    OneNode,
    /// One node gets all.
    Hashed,
}

impl Spread {
    const ALL: [Self; 4] = [Self::Even, Self::Zipf, Self::OneNode, Self::Hashed];

    fn name(self) -> &'static str {
        match self {
            Self::Even => "even",
            Self::Zipf => "Zipf 1.5",
            Self::OneNode => "95 % at one",
            Self::Hashed => "hashed",
        }
    }

    /// Returns the sums of the first weights.
    fn sums(self, nodes: usize) -> Vec<f64> {
        let weight = |node: usize| match self {
            Self::Even => 1.0,
            Self::Zipf => ((node + 1) as f64).powf(-1.5),
            Self::OneNode if node == 0 => 0.95,
            Self::OneNode => 0.05 / (nodes - 1) as f64,
            Self::Hashed => f64::from(u8::from(node == 0)),
        };
        let mut sum = 0.0;
        let add = |node| {
            sum += weight(node);
            sum
        };
        (0..nodes).map(add).collect()
    }
}

/// Load of one key.
#[derive(Clone, Copy)]
struct Load {
    nodes: usize,
    limit: u64,
    spread: Spread,
    callers: usize,
    /// Time from one request of a caller to its next one.
    pause: u64,
    /// Time after which units that were not used are given back.
    idle_time: Duration,
}

impl Load {
    /// 256 callers at once, as of a key in a workshop.
    fn heavy(nodes: usize, limit: u64, spread: Spread) -> Self {
        Self { nodes, limit, spread, callers: 256, pause: 2 * MILLI, idle_time: MINUTE }
    }

    /// One caller with a request at this interval.
    fn light(spread: Spread, seconds: u64, idle_time: Duration) -> Self {
        let pause = seconds * 1_000 * MILLI;
        Self { nodes: 8, limit: 200, spread, callers: 1, pause, idle_time }
    }
}

/// What one day of a key has cost.
#[derive(Default)]
struct Cost {
    trips: u64,
    /// Requests whose trip took too long.
    failures: u64,
}

enum Event {
    Request {
        caller: usize,
    },
    /// The statement that holds the counter's row commits.
    Commit {
        node: usize,
        request: ShareRequest,
        response: ShareResponse,
        news: Vec<News>,
    },
    TimeOut {
        node: usize,
        trip: u64,
    },
    Respond {
        node: usize,
        request: ShareRequest,
        response: ShareResponse,
    },
    Hear {
        node: usize,
        news: News,
    },
    Wake {
        node: usize,
    },
    Checkpoint {
        node: usize,
    },
    Reported {
        node: usize,
        lease: ReportedLease,
    },
    LookForIdle {
        node: usize,
    },
}

struct Node {
    share: Share,
    count: Count,
    /// Callers whose requests wait, the one that makes a trip included.
    waiting: Vec<usize>,
    /// Number of the trip that is under way, and the caller that makes it, if it is for more units.
    trip: u64,
    requester: Option<usize>,
    is_recalled: bool,
    /// Time at which requests that wait look again.
    wakes_at: Option<Instant>,
    /// Units of the last checkpoint.
    reported: u64,
    has_checkpoint: bool,
    looks_for_idle: bool,
}

struct Simulation {
    load: Load,
    sums: Vec<f64>,
    random: Random,
    base: Instant,
    now: u64,
    events: BinaryHeap<Reverse<(u64, usize)>>,
    /// Events by the number that the heap has.
    pending: Vec<Option<Event>>,
    tables: Tables,
    /// Statements that wait for the counter's row, with their trips.
    statements: VecDeque<(usize, u64, ShareRequest)>,
    is_locked: bool,
    nodes: Vec<Node>,
    active: usize,
    admitted: u64,
    cost: Cost,
}

impl Simulation {
    fn new(load: Load, seed: u64) -> Self {
        let count = Count::new("2026-11-22".parse().unwrap());
        let node = || Node {
            share: Share::new(0, 0, 0),
            count,
            waiting: Vec::new(),
            trip: 0,
            requester: None,
            is_recalled: false,
            wakes_at: None,
            reported: 0,
            has_checkpoint: false,
            looks_for_idle: false,
        };
        let mut simulation = Self {
            load,
            sums: load.spread.sums(load.nodes),
            random: Random(seed),
            base: Instant::now(),
            now: 0,
            events: BinaryHeap::new(),
            pending: Vec::new(),
            tables: Tables::new(load.nodes, load.limit, MAX_SIZE),
            statements: VecDeque::new(),
            is_locked: false,
            nodes: (0..load.nodes).map(|_| node()).collect(),
            active: load.callers,
            admitted: 0,
            cost: Cost::default(),
        };
        for caller in 0..load.callers {
            let after = simulation.random.below(load.pause.max(1));
            simulation.after(after, Event::Request { caller });
        }
        simulation
    }

    /// Runs until the units are used up, and returns what that has cost.
    fn run(mut self) -> Cost {
        while self.active > 0 {
            let Reverse((at, number)) = self.events.pop().expect("callers wait for something");
            self.now = at;
            let event = self.pending[number].take().expect("each event happens once");
            self.handle(event);
        }
        assert_eq!(self.admitted, self.load.limit);
        self.cost
    }

    fn after(&mut self, time: u64, event: Event) {
        self.events.push(Reverse((self.now + time, self.pending.len())));
        self.pending.push(Some(event));
    }

    fn at(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request { caller } => {
                let node = self.choose();
                self.nodes[node].share.wait_for(1);
                self.nodes[node].waiting.push(caller);
                self.serve(node);
            }
            Event::Commit { node, request, response, news } => {
                self.after(MESSAGE, Event::Respond { node, request, response });
                for news in news {
                    for node in 0..self.nodes.len() {
                        self.after(MESSAGE, Event::Hear { node, news: news.clone() });
                    }
                }
                self.is_locked = false;
                self.execute();
            }
            Event::TimeOut { node, trip } => {
                let is_waiting = |statement: &(usize, u64, ShareRequest)| statement.1 == trip;
                let waiting = self.statements.iter().position(|it| it.0 == node && is_waiting(it));
                let Some(waiting) = waiting else { return };
                self.statements.remove(waiting);
                let node_state = &mut self.nodes[node];
                node_state.share.fail();
                if let Some(caller) = node_state.requester.take() {
                    node_state.waiting.retain(|&other| other != caller);
                    node_state.share.leave(1);
                    self.cost.failures += 1;
                    self.after(RETRY, Event::Request { caller });
                }
                self.serve(node);
            }
            Event::Respond { node, request, response } => {
                let now = self.at();
                let Node { share, count, requester, .. } = &mut self.nodes[node];
                *requester = None;
                share.complete(count, &request, &response, now, 0);
                self.serve(node);
            }
            Event::Hear { node, news } => {
                let share = &mut self.nodes[node].share;
                match news {
                    News::Free => share.hear_of_free(),
                    News::UsedUp(limit) => share.hear_of_end(limit, 0),
                    News::Recall(nodes) => self.nodes[node].is_recalled |= nodes.contains(&node),
                    News::Limit => unreachable!("the limit stays"),
                }
                self.serve(node);
            }
            Event::Wake { node } => self.serve(node),
            Event::Checkpoint { node } => {
                let spent = self.nodes[node].share.spent();
                let batch = Batch { spent, epoch: 0, returned: 0 };
                let (lease, _, _) = self.tables.report(self.now / MILLI, node, &batch);
                (self.nodes[node].reported, self.nodes[node].has_checkpoint) = (spent, false);
                self.after(FLUSH, Event::Reported { node, lease });
            }
            Event::Reported { node, lease } => {
                let Node { share, count, .. } = &mut self.nodes[node];
                share.refresh(count, &lease);
            }
            Event::LookForIdle { node } => {
                let now = self.at();
                let state = &mut self.nodes[node];
                state.looks_for_idle = false;
                state.is_recalled |= state.share.is_idle(now, self.load.idle_time);
                self.serve(node);
                self.look_for_idle(node);
            }
        }
    }

    fn choose(&mut self) -> usize {
        const PRECISION: u64 = 1 << 53;
        let share = self.random.below(PRECISION) as f64 / PRECISION as f64;
        let place = share * self.sums[self.sums.len() - 1];
        self.sums.partition_point(|&sum| sum <= place).min(self.sums.len() - 1)
    }

    /// Lets each request that waits at a node do what it can, and gives units back that were recalled.
    fn serve(&mut self, node: usize) {
        let now = self.at();
        let limit = Limit::Units(self.load.limit);
        let demand = Demand::new("a".into(), limit, SystemTime::UNIX_EPOCH);
        // Giving back stops the share before others take of it.
        if self.nodes[node].is_recalled {
            let Node { share, count, .. } = &mut self.nodes[node];
            if let Some(request) = share.give_up_unused(count.origin()) {
                self.nodes[node].is_recalled = false;
                self.send(node, None, request);
            }
        }
        for caller in self.nodes[node].waiting.clone() {
            let Node { share, count, .. } = &mut self.nodes[node];
            match share.next(count, &demand, now, 0) {
                Step::Take => {
                    share.spend(1, now);
                    self.admitted += 1;
                    self.end(node, caller, Some(self.load.pause));
                    self.checkpoint(node);
                }
                Step::Request(request) => self.send(node, Some(caller), request),
                Step::Wait(Some(until)) if self.nodes[node].wakes_at != Some(until) => {
                    self.nodes[node].wakes_at = Some(until);
                    let time = until.saturating_duration_since(now).as_micros() as u64;
                    self.after(time, Event::Wake { node });
                }
                Step::Wait(_) => {}
                Step::UsedUp => self.end(node, caller, None),
                Step::Elsewhere => {
                    self.end(node, caller, Some(RETRY));
                }
            }
        }
    }

    /// Ends a request, and lets its caller send another one, if it does.
    fn end(&mut self, node: usize, caller: usize, next: Option<u64>) {
        self.nodes[node].waiting.retain(|&other| other != caller);
        self.nodes[node].share.leave(1);
        match next {
            Some(time) => self.after(time, Event::Request { caller }),
            None => self.active -= 1,
        }
    }

    /// Plans what follows from the use of a unit, where it is not planned yet.
    fn checkpoint(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        if !state.has_checkpoint && state.share.spent() > state.reported {
            state.has_checkpoint = true;
            let left = CHECKPOINT - self.now % CHECKPOINT;
            self.after(left, Event::Checkpoint { node });
        }
        self.look_for_idle(node);
    }

    fn look_for_idle(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        if !state.looks_for_idle && state.share.unused() > 0 {
            state.looks_for_idle = true;
            let left = IDLE_INTERVAL - self.now % IDLE_INTERVAL;
            self.after(left, Event::LookForIdle { node });
        }
    }

    // The database, which changes a counter's row by one statement at a time.

    fn send(&mut self, node: usize, requester: Option<usize>, request: ShareRequest) {
        self.cost.trips += 1;
        self.nodes[node].trip += 1;
        self.nodes[node].requester = requester;
        let trip = self.nodes[node].trip;
        self.statements.push_back((node, trip, request));
        self.after(STATEMENT_TIMEOUT, Event::TimeOut { node, trip });
        self.execute();
    }

    fn execute(&mut self) {
        if self.is_locked {
            return;
        }
        let Some((node, _, request)) = self.statements.pop_front() else { return };
        let seq = request.seq;
        let (response, _, news) =
            self.tables.extend(self.now / MILLI, node, &request, Mutation::None);
        let response = response.expect("the database forgets nothing");
        assert_ne!(response.state, ShareState::Stale, "nothing is lost");
        let flush = if response.seq > seq { FLUSH } else { 0 };
        self.is_locked = true;
        self.after(MESSAGE + STATEMENT + flush, Event::Commit { node, request, response, news });
    }
}

/// Returns the medians of trips and of failed requests of days with this load.
fn medians(load: Load) -> [u64; 2] {
    let costs: Vec<Cost> = (0..DAYS).map(|seed| Simulation::new(load, seed).run()).collect();
    [|cost: &Cost| cost.trips, |cost: &Cost| cost.failures].map(|figure| {
        let mut figures: Vec<u64> = costs.iter().map(figure).collect();
        figures.sort_unstable();
        figures[figures.len() / 2]
    })
}

fn print_row(cells: impl IntoIterator<Item = String>) {
    println!("| {} |", cells.into_iter().collect::<Vec<_>>().join(" | "));
}

#[test]
fn limit_is_exact_over_each_number_of_nodes() {
    for nodes in [1, 8, 100] {
        for spread in Spread::ALL {
            // The run itself compares what was admitted with the limit.
            let cost = Simulation::new(Load::heavy(nodes, 200, spread), 1).run();
            let most = if spread == Spread::Hashed { 10 } else { 10 * nodes as u64 };
            assert!((1..=most).contains(&cost.trips), "{} trips of {nodes} nodes", cost.trips);
        }
    }
}

#[test]
#[ignore = "needs some minutes, and prints tables"]
fn nightly_sweep() {
    let of_limit = |limit| Spread::ALL.map(|spread| (limit, spread));
    let columns = [200, 1_000, 10_000].map(of_limit).concat();
    let names = columns.iter().map(|(limit, spread)| format!("{limit} {}", spread.name()));
    let mut failed = Vec::new();
    print_row(["nodes".to_owned()].into_iter().chain(names));
    println!("|{}", "--:|".repeat(columns.len() + 1));
    for nodes in [1, 2, 4, 8, 16, 32, 64, 125, 250, 500, 1_000] {
        let of = |&(limit, spread): &(u64, Spread)| medians(Load::heavy(nodes, limit, spread));
        let row: Vec<[u64; 2]> = columns.iter().map(of).collect();
        let cells = |figure: usize| {
            let figures = row.iter().map(move |figures| figures[figure].to_string());
            [nodes.to_string()].into_iter().chain(figures)
        };
        print_row(cells(0));
        failed.push(cells(1).collect::<Vec<_>>());
    }
    println!("\nRequests that failed, in the same columns:\n");
    failed.into_iter().for_each(print_row);
    println!("\n| a request each | even | hashed | even, given back after an hour | hashed |");
    println!("|--:|--:|--:|--:|--:|");
    for seconds in [1, 10, 60, 120, 300] {
        let loads = [MINUTE, 60 * MINUTE].map(|idle_time| {
            [Spread::Even, Spread::Hashed].map(|spread| Load::light(spread, seconds, idle_time))
        });
        let trips = loads.concat().into_iter().map(|load| medians(load)[0].to_string());
        print_row([format!("{seconds} s")].into_iter().chain(trips));
    }
}
