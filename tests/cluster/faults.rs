//! Processes, connections and the server fail at random under load, and limits stay exact.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    invariants,
    nodes::{self, Node, Outcome, PACE},
    upstream::CountingUpstream,
};
use crate::common::{
    ADMIN_TOKEN, Client, Random, eventually,
    postgres::{Postgres, psql},
};

const NODES: usize = 4;
const KEYS: usize = 1000;
/// Keys that get half of the requests.
const HOT: usize = 16;
const CLIENTS: usize = 48;
/// Time in which service returns where other work takes the processors, and each checkpoint seconds.
const BACK_WITHIN: Duration = Duration::from_secs(30);

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
}

struct Scene {
    server: Postgres,
    url: String,
    upstream: CountingUpstream,
    nodes: Vec<Node>,
    keys: Arc<Vec<Key>>,
    random: Random,
    faults: Vec<(&'static str, u32)>,
    /// The longest time in which service has returned.
    slowest_return: Duration,
}

impl Scene {
    async fn start() -> Self {
        let mut random = Random::seeded("faults");
        let server = Postgres::start(&["fsync=off", "max_connections=300"]);
        let (url, upstream) = (server.create_database(), CountingUpstream::start().await);
        let nodes = nodes::start(NODES, &url, &upstream).await;
        let mut keys = Vec::with_capacity(KEYS);
        for number in 0..KEYS {
            let limit = match number < HOT {
                true => [7, 50, 200, 1000][random.below(4) as usize],
                false => [1, 2, 5, 10][random.below(4) as usize],
            };
            let name = format!("key-{number}");
            let secret = nodes::create_key(&nodes[number % NODES], &name, limit).await;
            let history = Mutex::default();
            keys.push(Key { secret, name, limit, history });
        }
        Self {
            server,
            url,
            upstream,
            nodes,
            keys: Arc::new(keys),
            random,
            faults: Vec::new(),
            slowest_return: Duration::ZERO,
        }
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
        let kind = match self.random.below(8) {
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
                self.nodes[node].stop_and_start();
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
                "cut connections"
            }
            6 => {
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
        let used = psql(&self.url, used);
        let used: HashMap<&str, u64> = used
            .lines()
            .map(|line| line.split_once('|').unwrap())
            .map(|(label, used)| (label.trim_start_matches("lowered-"), used.parse().unwrap()))
            .collect();
        for key in self.keys.iter() {
            let served = key.history.lock().unwrap().served_since_reset();
            let used = used.get(&*key.name).copied().unwrap_or(0);
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
                    let mut node = number;
                    loop {
                        node = (node + 1) % NODES;
                        match keys[number].send(&client, addresses[node]).await {
                            Outcome::UsedUp => break,
                            Outcome::Served | Outcome::TryAgain => {}
                            outcome => panic!("{outcome:?} without a fault"),
                        }
                    }
                }
            });
        }
        clients.join_all().await;
    }
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
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn limits_are_exact_while_nodes_connections_and_the_server_fail() {
    let seconds =
        std::env::var("TOWER_QUOTA_CLUSTER_SECONDS").map_or(60, |time| time.parse().unwrap());
    let mut scene = Scene::start().await;
    let is_over = Arc::new(AtomicBool::new(false));
    let clients = scene.clients(&is_over);
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        scene.for_a_while(Duration::from_millis(600)).await;
        scene.fault().await;
    }
    scene.service_returns().await;
    is_over.store(true, Ordering::Relaxed);
    clients.join_all().await;
    let served: usize = scene.keys.iter().map(|key| key.history.lock().unwrap().served.len()).sum();
    let (faults, slowest) = (&scene.faults, scene.slowest_return);
    println!("{served} served during {faults:?}; service returned after at most {slowest:?}");
    invariants::hold(&scene.url);

    for key in scene.keys.iter() {
        key.is_exact(scene.upstream.calls(&key.name));
    }
    scene.spend_the_rest().await;
    for key in scene.keys.iter() {
        key.is_exact(scene.upstream.calls(&key.name));
        if !key.history.lock().unwrap().is_lowered {
            let limit = key.limit;
            nodes::usage_agrees(&scene.nodes, &key.secret, limit).await;
        }
    }
    for node in &mut scene.nodes {
        node.stop();
    }
    invariants::hold_at_rest(&scene.url);
    scene.everything_served_is_counted();
}
