//! Processes, connections and the server fail at random under load, and limits stay exact.

use std::{
    collections::HashMap,
    mem,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    connections::Connections,
    invariants,
    nodes::{self, Node, Outcome, PACE},
    upstream::CountingUpstream,
};
use crate::common::{
    ADMIN_TOKEN, Client, Random, eventually,
    postgres::{Postgres, connect, psql},
};

const NODES: usize = 4;
/// Number of keys of a round.
const KEYS: usize = 1000;
/// Time of a round, after which most keys are used up.
const ROUND: Duration = Duration::from_secs(120);
/// Keys that get half of the requests.
const HOT: usize = 16;
const CLIENTS: usize = 48;
/// Time in which service returns where other work takes the processors, and each checkpoint seconds.
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// Time within which a journal is synced.
const SYNC_INTERVAL: Duration = Duration::from_millis(200);
/// Number of statements that wait for a lock of another transaction.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";

struct Key {
    secret: String,
    name: String,
    /// The limit that it was created with.
    limit: u64,
    history: Mutex<History>,
}

#[derive(Default)]
struct History {
    /// Times at which requests were sent and their responses arrived, of those that were served.
    served: Vec<(Instant, Instant)>,
    /// Number of requests without a response.
    lost: u64,
    /// Times at which resets were sent and confirmed.
    resets: Vec<(Instant, Instant)>,
    /// Number of resets without a response, which may happen at any time or never.
    lost_resets: u64,
    /// Maximum number of units that a node held unused when its journal, or the end of it, was lost. They count as used.
    forfeited: u64,
    is_lowered: bool,
}

impl History {
    /// Number of served requests that surely lie between two resets, at most; 0 if that is not known.
    fn served_in_an_epoch(&self) -> u64 {
        if self.lost_resets > 0 {
            return 0;
        }
        let begins = [None].into_iter().chain(self.resets.iter().map(|(_, end)| Some(*end)));
        let ends = self.resets.iter().map(|(begin, _)| Some(*begin)).chain([None]);
        let within = |(begin, end): (Option<Instant>, Option<Instant>)| {
            let served = self.served.iter().filter(|(sent, received)| {
                begin.is_none_or(|begin| *sent > begin) && end.is_none_or(|end| *received < end)
            });
            served.count() as u64
        };
        begins.zip(ends).map(within).max().unwrap()
    }

    /// Number of served requests that surely came after the last reset.
    fn served_since_reset(&self) -> u64 {
        let last = self.resets.last().map(|(_, end)| *end);
        if self.lost_resets > 0 {
            return 0;
        }
        self.served.iter().filter(|(sent, _)| last.is_none_or(|last| *sent > last)).count() as u64
    }

    /// Number of requests that may have cost a unit since the last reset, and of units that may be forfeited, at most.
    fn spent_since_reset(&self) -> u64 {
        let last = self.resets.last().map(|(begin, _)| *begin);
        let served =
            self.served.iter().filter(|(_, received)| last.is_none_or(|last| *received > last));
        served.count() as u64 + self.lost + self.forfeited
    }
}

struct Scene {
    server: Postgres,
    url: String,
    connections: Connections,
    upstream: CountingUpstream,
    nodes: Vec<Node>,
    /// The keys of this round.
    keys: Arc<Vec<Key>>,
    /// Those of the rounds before.
    earlier: Vec<Arc<Vec<Key>>>,
    random: Random,
    faults: Vec<(&'static str, u32)>,
    /// Number of statements that waited while connections were cut.
    cut_statements: u64,
    /// Number of bytes of journals that losses of power have taken.
    lost_bytes: usize,
    /// The longest time in which service has returned.
    slowest_return: Duration,
}

impl Scene {
    async fn start() -> Self {
        let random = Random::seeded("faults");
        let server = Postgres::start(&["fsync=off", "max_connections=300"]);
        let (url, upstream) = (server.create_database(), CountingUpstream::start().await);
        let connections = Connections::to(&url);
        let settings = |node| nodes::settings(&connections.url(&client_name(node)), &upstream);
        let nodes: Vec<_> = (0..NODES).map(|node| Node::start(settings(node))).collect();
        for node in &nodes {
            node.is_ready().await;
        }
        Self {
            server,
            url,
            connections,
            upstream,
            nodes,
            keys: Arc::default(),
            earlier: Vec::new(),
            random,
            faults: Vec::new(),
            cut_statements: 0,
            lost_bytes: 0,
            slowest_return: Duration::ZERO,
        }
    }

    /// Creates the keys of a round.
    async fn create_keys(&mut self) {
        let round = self.earlier.len();
        let mut keys = Vec::with_capacity(KEYS);
        while keys.len() < KEYS {
            let create = self.nodes.iter().zip(keys.len()..KEYS).map(|(node, number)| {
                let limit = match number < HOT {
                    true => [7, 50, 200, 1000][self.random.below(4) as usize],
                    false => [1, 2, 5, 10][self.random.below(4) as usize],
                };
                let name = format!("key-{round}-{number}");
                async move {
                    let secret = nodes::create_key(node, &name, limit).await;
                    Key { secret, name, limit, history: Mutex::default() }
                }
            });
            keys.extend(join_all(create).await);
        }
        self.keys = Arc::new(keys);
    }

    /// Clients that send requests until the end, each to any node.
    fn clients(&mut self, is_over: &Arc<AtomicBool>) -> JoinSet<()> {
        let addresses: Vec<SocketAddr> = self.nodes.iter().map(Node::address).collect();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (keys, addresses) = (self.keys.clone(), addresses.clone());
            let (is_over, mut random) = (is_over.clone(), self.random.fork());
            clients.spawn(async move {
                let client = Client::http1();
                while !is_over.load(Ordering::Relaxed) {
                    let among = if random.below(2) == 0 { HOT } else { KEYS };
                    let key = &keys[random.below(among as u64) as usize];
                    let node = addresses[random.below(NODES as u64) as usize];
                    key.send(&client, node).await;
                }
            });
        }
        clients
    }

    /// Pauses of up to `most` in which clients go on.
    async fn for_a_while(&mut self, most: Duration) {
        let milliseconds = self.random.below(most.as_millis() as u64);
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }

    async fn fault(&mut self) {
        let node = self.random.below(NODES as u64) as usize;
        let kind = match self.random.below(12) {
            0 | 1 => {
                self.nodes[node].gateway().signal(Signal::STOP);
                self.for_a_while(Duration::from_millis(1500)).await;
                // The others do not know what it has spent.
                let other = (node + 1) % NODES;
                match self.random.below(3) {
                    0 => self.reset(other).await,
                    1 => self.lower(other).await,
                    _ => {}
                }
                self.nodes[node].gateway().signal(Signal::CONT);
                "paused node"
            }
            2 => {
                self.nodes[node].kill_and_start();
                "kill -9"
            }
            3 => {
                self.nodes[node].terminate();
                self.nodes[node].start_again();
                "orderly restart"
            }
            4 => {
                let how = ["fast", "immediate"][self.random.below(2) as usize];
                tokio::task::block_in_place(|| self.server.stop(how));
                self.for_a_while(Duration::from_millis(1500)).await;
                tokio::task::block_in_place(|| self.server.resume());
                self.service_returns().await;
                "restarted server"
            }
            5 => {
                psql(
                    &self.url,
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND random() < 0.5",
                );
                "ended connections"
            }
            6 => {
                self.cut_waiting_statements(node).await;
                "cut connections with waiting statements"
            }
            7 => {
                self.lose_power(node).await;
                "loss of power"
            }
            8 => {
                self.start_copy(node).await;
                "copied journal beside its original"
            }
            9 => self.replace_journal(node).await,
            10 => {
                self.reset(node).await;
                "reset"
            }
            _ => {
                self.lower(node).await;
                "lowered limit"
            }
        };
        match self.faults.iter_mut().find(|(name, _)| *name == kind) {
            Some((_, count)) => *count += 1,
            None => self.faults.push((kind, 1)),
        }
    }

    /// Cuts connections, or ends a node, while statements wait for a lock: they are executed once it is released.
    async fn cut_waiting_statements(&mut self, node: usize) {
        // There are no trips for keys that are used up.
        self.reset(node).await;
        let [blocker, observer] = [connect(&self.url).await, connect(&self.url).await];
        let lock = "BEGIN; SELECT FROM counters ORDER BY key_id, quota, day FOR UPDATE";
        blocker.batch_execute(lock).await.unwrap();
        // A trip is cancelled by the server if it waits longer.
        self.for_a_while(Duration::from_millis(100)).await;
        let waiting: i64 = observer.query_one(WAITING, &[]).await.unwrap().get(0);
        match self.random.below(3) {
            0 => self.nodes[node].kill(),
            _ => self.connections.cut_half(&mut self.random),
        }
        self.cut_statements += waiting as u64;
        self.for_a_while(Duration::from_millis(100)).await;
        blocker.batch_execute("COMMIT").await.unwrap();
        if self.nodes[node].has_ended() {
            self.nodes[node].start_again();
        }
    }

    /// Ends a node as a loss of power does: some of what it has not synced is missing, and it starts on another boot.
    async fn lose_power(&mut self, node: usize) {
        let synced = self.nodes[node].journal().written();
        self.for_a_while(SYNC_INTERVAL).await;
        self.nodes[node].kill();
        self.note_forfeited(node).await;
        let journal = self.nodes[node].journal();
        self.lost_bytes += journal.lose_some_since(synced, &mut self.random);
        journal.note_another_boot(&self.url);
        self.nodes[node].start_again();
        self.nodes[node].is_ready().await;
    }

    /// Starts a gateway with a copy of the journal of a running one.
    async fn start_copy(&mut self, node: usize) {
        self.nodes[node].is_ready().await;
        let copy = self.nodes[node].copy_journal();
        let copy = self.nodes[node].settings_of_copy(&copy);
        nodes::is_rejected(&tokio::task::block_in_place(|| copy.start())).await;
    }

    /// Replaces the journal of a node by an older copy.
    async fn replace_journal(&mut self, node: usize) -> &'static str {
        let copy = self.nodes[node].copy_journal();
        self.for_a_while(Duration::from_millis(1500)).await;
        match self.random.below(3) {
            0 => {
                self.nodes[node].terminate();
            }
            _ => self.nodes[node].kill(),
        }
        self.note_forfeited(node).await;
        match self.nodes[node].start_with(copy).await {
            Ok(()) => "accepted copy of a journal",
            Err(printed) => {
                assert!(printed.contains("so what was counted may be missing"), "{printed}");
                self.nodes[node].start_again();
                self.nodes[node].is_ready().await;
                "rejected copy of a journal"
            }
        }
    }

    /// Notes what a node that has ended may hold unused.
    async fn note_forfeited(&self, node: usize) {
        let name = client_name(node);
        let open =
            format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
        let have_ended = || async { psql(&self.url, &open) == "0" };
        eventually("its last statements end", have_ended).await;
        let id = self.nodes[node].journal().node_id();
        let leased = format!(
            "SELECT k.label, l.granted - l.spent
             FROM leases l JOIN nodes n ON n.number = l.node JOIN api_keys k ON k.id = l.key_id
             WHERE n.id = '\\x{id}' AND l.granted > l.spent"
        );
        let leased = numbers(&psql(&self.url, &leased));
        for key in self.keys.iter() {
            let units = leased.get(&key.name).copied().unwrap_or(0);
            key.history.lock().unwrap().forfeited += units;
        }
    }

    /// Each node serves a key of its own again.
    async fn service_returns(&mut self) {
        let since = Instant::now();
        for number in 0..NODES {
            let serves = || async {
                Client::http1().get(&self.nodes[number].gateway().url("/readyz")).await.status
                    == 200
            };
            eventually("service returns", serves).await;
        }
        self.slowest_return = self.slowest_return.max(since.elapsed());
        let logs = || self.nodes.iter().map(|node| node.gateway().printed()).collect::<String>();
        assert!(since.elapsed() < BACK_WITHIN, "{:?}\n{}", since.elapsed(), logs());
    }

    /// Each node reports that the limits which were not lowered are used up.
    async fn usage_agrees(&self) {
        for keys in self.keys.chunks(CLIENTS) {
            let keys = keys.iter().filter(|key| !key.history.lock().unwrap().is_lowered);
            let agree = keys.map(|key| nodes::usage_agrees(&self.nodes, &key.secret, key.limit));
            join_all(agree).await;
        }
    }

    async fn change(&self, node: usize, method: Method, path: &str, body: &Value) -> bool {
        let url = format!("http://{}{path}", self.nodes[node].address());
        let token = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = Client::http1().open(method, &url, &headers, body).await;
        response.is_ok_and(|response| response.status().is_success())
    }

    async fn reset(&mut self, node: usize) {
        for _ in 0..8 {
            let key = self.random.below(HOT as u64 * 2) as usize;
            let path = format!("/admin/keys/{}/reset-usage", self.keys[key].secret);
            let sent = Instant::now();
            let is_done = self.change(node, Method::POST, &path, &Value::Null).await;
            let mut history = self.keys[key].history.lock().unwrap();
            match is_done {
                true => history.resets.push((sent, Instant::now())),
                false => history.lost_resets += 1,
            }
        }
    }

    async fn lower(&mut self, node: usize) {
        let key = &self.keys[HOT / 2 + self.random.below(KEYS as u64 / 4) as usize];
        key.history.lock().unwrap().is_lowered = true;
        let path = format!("/admin/keys/{}", key.secret);
        let lower = json!({"daily_limit": 1, "label": format!("lowered-{}", key.name)});
        self.change(node, Method::PATCH, &path, &lower).await;
    }

    /// The database has what was served since the last reset, when all nodes have ended.
    fn everything_served_is_counted(&self) {
        let used = "SELECT k.label, u.used FROM api_keys k JOIN daily_usage u ON u.key_id = k.id";
        let used = numbers(&psql(&self.url, used));
        for key in self.earlier.iter().chain([&self.keys]).flat_map(|keys| keys.iter()) {
            let served = key.history.lock().unwrap().served_since_reset();
            let used = used.get(&key.name).copied().unwrap_or(0);
            assert!(served <= used, "{}: {served} served, {used} counted", key.name);
        }
    }

    /// Every unit that has not been served may be spent now, by whichever node.
    async fn spend_the_rest(&mut self) {
        let addresses: Arc<Vec<SocketAddr>> =
            Arc::new(self.nodes.iter().map(Node::address).collect());
        let mut clients = JoinSet::new();
        for first in 0..CLIENTS {
            let (keys, addresses) = (self.keys.clone(), addresses.clone());
            clients.spawn(async move {
                let client = Client::http1();
                for number in (first..KEYS).step_by(CLIENTS) {
                    let (mut node, until) = (number, Instant::now() + BACK_WITHIN);
                    loop {
                        node = (node + 1) % NODES;
                        match keys[number].send(&client, addresses[node]).await {
                            Outcome::UsedUp => break,
                            Outcome::Served => {}
                            // On a machine that is busy, a trip may take longer than a request waits.
                            Outcome::TryAgain | Outcome::Unavailable if Instant::now() < until => {}
                            outcome => panic!("{outcome:?} without a fault"),
                        }
                    }
                }
            });
        }
        clients.join_all().await;
    }
}

impl Scene {
    /// Faults until then under requests with new keys, of which the rest is spent afterwards.
    async fn round(&mut self, until: Instant) {
        self.create_keys().await;
        let is_over = Arc::new(AtomicBool::new(false));
        let clients = self.clients(&is_over);
        while Instant::now() < until {
            self.for_a_while(Duration::from_millis(600)).await;
            self.fault().await;
        }
        self.service_returns().await;
        is_over.store(true, Ordering::Relaxed);
        clients.join_all().await;
        let served = |key: &Key| key.history.lock().unwrap().served.len();
        let served: usize = self.keys.iter().map(served).sum();
        println!(
            "{served} served; so far {:?}, {} statements cut while they waited, {} bytes lost; service returned after at \
             most {:?}",
            self.faults, self.cut_statements, self.lost_bytes, self.slowest_return
        );
        invariants::hold(&self.url);
        for key in self.keys.iter() {
            key.is_exact(self.upstream.calls(&key.name));
        }
        self.spend_the_rest().await;
        for key in self.keys.iter() {
            key.is_exact(self.upstream.calls(&key.name));
            key.could_be_spent();
        }
        self.usage_agrees().await;
        self.earlier.push(mem::take(&mut self.keys));
    }
}

/// Name of a node to the server.
fn client_name(node: usize) -> String {
    format!("node-{node}")
}

/// Reads lines of labels of keys and numbers, and returns the numbers by the names of the keys.
fn numbers(lines: &str) -> HashMap<String, u64> {
    let numbers = lines.lines().map(|line| line.split_once('|').unwrap());
    numbers
        .map(|(label, number)| {
            (label.trim_start_matches("lowered-").to_owned(), number.parse().unwrap())
        })
        .collect()
}

impl Key {
    async fn send(&self, client: &Client, node: SocketAddr) -> Outcome {
        let sent = Instant::now();
        let outcome = nodes::send(client, node, &self.secret, &self.name).await;
        self.note(sent, &outcome);
        if matches!(outcome, Outcome::Lost | Outcome::Unavailable | Outcome::TryAgain) {
            tokio::time::sleep(PACE).await;
        }
        outcome
    }

    fn note(&self, sent: Instant, outcome: &Outcome) {
        let mut history = self.history.lock().unwrap();
        match outcome {
            Outcome::Served => history.served.push((sent, Instant::now())),
            Outcome::Lost => history.lost += 1,
            Outcome::UsedUp | Outcome::TryAgain | Outcome::Unavailable => {}
        }
    }

    /// Checks what holds at any time, with the limit that was the highest.
    fn is_exact(&self, calls: u64) {
        let (limit, history) = (self.limit, self.history.lock().unwrap());
        let epochs = 1 + history.resets.len() as u64 + history.lost_resets;
        let served = history.served.len() as u64;
        let name = &self.name;
        assert!(history.served_in_an_epoch() <= limit, "{name}: more than {limit} in an epoch");
        assert!(served <= limit * epochs, "{name}: {served} of {limit} in {epochs} epochs");
        assert!(served <= calls, "{name}: {served} served of {calls} calls upstream");
        assert!(
            calls <= served + history.lost,
            "{name}: a rejected request has reached the upstream"
        );
    }

    /// Checks, after its limit was used up, that no unit was lost otherwise than a fault may lose it.
    fn could_be_spent(&self) {
        let (name, limit, history) = (&self.name, self.limit, self.history.lock().unwrap());
        let spent = history.spent_since_reset();
        assert!(
            history.is_lowered || limit <= spent,
            "{name}: of {limit} units only {spent} could be spent"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn limits_are_exact_while_nodes_connections_and_the_server_fail() {
    let seconds =
        std::env::var("TOWER_QUOTA_CLUSTER_SECONDS").map_or(60, |time| time.parse().unwrap());
    let mut scene = Scene::start().await;
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        scene.round(until.min(Instant::now() + ROUND)).await;
    }
    for node in &mut scene.nodes {
        node.stop();
    }
    invariants::hold_at_rest(&scene.url);
    scene.everything_served_is_counted();
}
