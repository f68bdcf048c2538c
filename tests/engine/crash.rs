//! `kill -9` at any moment: what has reached the upstream is counted, and nothing else but what was
//! under way.
//!
//! Each cycle starts the gateway, loads it, kills it at a random moment and compares what it then
//! says with what the clients saw. `TOWER_QUOTA_CRASHES` sets the number of cycles (50), and
//! `TOWER_QUOTA_SEED` repeats a run's choices.

use std::{
    collections::VecDeque,
    env,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::common::{
    Gateway, GatewayCommand, Random, StubBody, Upstream, Wire, chat_json, full, json_response,
    streaming,
};
use http::{Request, Response};
use rusqlite::Connection;
use serde_json::json;
use tokio::{sync::Notify, task::JoinSet};

/// Cycles on one file.
const CYCLES: u64 = 25;
const CLIENTS: usize = 24;
/// What requests ask the upstream for: see [`responder`].
const WISHES: [&str; 6] = ["json", "json", "json", "stream", "stream", "bad"];
/// Refunded each time, so requested only where the limit of refunds is far.
const FAIL: &str = "fail";

/// What the clients know of one key.
struct Key {
    text: String,
    limit: u64,
    may_fail: bool,
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Requests written, as a whole or in part.
    sent: u64,
    /// Heads read as a whole, of whatever status.
    heads: u64,
    /// Those of them that are charged: responses of the upstream that are no 5xx.
    charged: u64,
}

impl Key {
    async fn issue(gateway: &Gateway, limit: u64, may_fail: bool) -> Arc<Self> {
        let text = gateway.create_key(json!({"daily_limit": limit})).await;
        Arc::new(Self { text, limit, may_fail, seen: Mutex::default() })
    }

    fn seen(&self) -> Seen {
        *self.seen.lock().unwrap()
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
    }
}

/// What the upstream responses, and counts unless it is given back. Streams are left open until five are,
/// or their gateway dies.
fn responder(
    calls: Arc<AtomicU64>,
) -> impl Fn(Request<bytes::Bytes>) -> Response<StubBody> + Send + Sync {
    let open = Mutex::new(VecDeque::new());
    move |request| {
        calls.fetch_add(u64::from(request.body() != FAIL), Ordering::SeqCst);
        respond(request.body(), &open)
    }
}

type Feed = tokio::sync::mpsc::UnboundedSender<Result<bytes::Bytes, tower::BoxError>>;

fn respond(body: &[u8], open: &Mutex<VecDeque<Feed>>) -> Response<StubBody> {
    match body {
        b"stream" => {
            let (feed, body) = streaming();
            feed.send(Ok("data: 1\n\n".into())).unwrap();
            let mut open = open.lock().unwrap();
            open.push_back(feed);
            while open.len() > 5 {
                // Its reader may be gone.
                let _ = open.pop_front().unwrap().send(Ok("data: [DONE]\n\n".into()));
            }
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        }
        b"bad" => Response::builder().status(400).body(full(r#"{"error":{}}"#)).unwrap(),
        b"fail" => Response::builder().status(500).body(full("")).unwrap(),
        _ => json_response(chat_json().to_string()),
    }
}

/// Sends requests until the gateway is gone. `heads` is notified of every response.
async fn load(
    gateway: std::net::SocketAddr,
    keys: Vec<Arc<Key>>,
    mut random: Random,
    heads: Heads,
) {
    let Ok(mut wire) = Wire::connect(gateway).await else { return };
    loop {
        let key = &keys[random.below(keys.len() as u64) as usize];
        let wish = match random.below(10) {
            0 if key.may_fail => FAIL,
            _ => WISHES[random.below(WISHES.len() as u64) as usize],
        };
        key.note(|seen| seen.sent += 1);
        if wire.write(&key.text, wish).await.is_err() {
            return;
        }
        let Ok(head) = wire.head().await else { return };
        assert!([200, 400, 429, 500].contains(&head.status), "{head:?}");
        key.note(|seen| {
            seen.heads += 1;
            seen.charged += u64::from(matches!(head.status, 200 | 400));
        });
        let (charged, limit) = (key.seen().charged, key.limit);
        assert!(charged <= limit || limit == 0, "{charged} completed of {limit}");
        heads.one_more();
        if wire.body(head).await.is_err() {
            return;
        }
    }
}

/// Counts the responses that have been read, and wakes who waits for a number of them.
#[derive(Clone)]
struct Heads(Arc<(AtomicU64, Notify)>);

impl Heads {
    fn one_more(&self) {
        if self.0.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.1.notify_one();
        }
    }
}

/// One cycle: load on `keys`, and the end.
async fn load_and_kill(gateway: &mut Gateway, keys: &[Arc<Key>], random: &mut Random) {
    let heads = Heads(Arc::new((AtomicU64::new(1 + random.below(400)), Notify::new())));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(load(gateway.address(), keys.to_vec(), random.fork(), heads.clone()));
    }
    let busy = tokio::time::timeout(crate::common::DEADLINE, heads.0.1.notified()).await;
    assert!(busy.is_ok(), "the clients are served: {}", gateway.printed());
    // Anywhere between this response and the next ones.
    tokio::time::sleep(Duration::from_micros(random.below(8_000))).await;
    gateway.kill9();
    clients.join_all().await;
}

/// The database as it lies there, looked at in a copy.
fn assert_intact(dir: &Path) {
    let copy = tempfile::tempdir().unwrap();
    for name in ["quota.db", "quota.db-wal"] {
        if dir.join(name).exists() {
            std::fs::copy(dir.join(name), copy.path().join(name)).unwrap();
        }
    }
    let copy = Connection::open(copy.path().join("quota.db")).unwrap();
    let said = copy.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(said, "ok");
}

/// Uses up what is left of a key's day; returns how much it was.
async fn exhaust(gateway: &Gateway, key: Arc<Key>) -> u64 {
    let mut clients = JoinSet::new();
    for _ in 0..key.limit.min(16) {
        let (key, gateway) = (key.clone(), gateway.address());
        clients.spawn(async move {
            let mut wire = Wire::connect(gateway).await.unwrap();
            for served in 0..=key.limit {
                match wire.post(&key.text, "json").await.unwrap().0 {
                    200 => {}
                    429 => return served,
                    status => panic!("{status}"),
                }
            }
            panic!("over the limit of {}", key.limit);
        });
    }
    clients.join_all().await.iter().sum()
}

/// `cycles` cycles on one file. Returns how many responses were charged, and how many requests sent.
async fn run(durability: &str, cycles: u64, random: &mut Random) -> (u64, u64) {
    let calls = Arc::new(AtomicU64::new(0));
    let upstream = Upstream::start(responder(calls.clone())).await;
    let command = GatewayCommand::before(upstream.base_url()).env("DURABILITY", durability);
    let mut gateway = command.start();
    let mut keys = Vec::new();
    for limit in [0, 3_000, 300] {
        keys.push(Key::issue(&gateway, limit, limit != 300).await);
    }
    let lasting = keys.len();
    let mut stranded_at_most = vec![0; lasting];
    for cycle in 0..cycles {
        // Small limits are soon used up: some new ones each time, beside those of the last time.
        for limit in [1 + random.below(8), 20 + random.below(40)] {
            keys.push(Key::issue(&gateway, limit, false).await);
            stranded_at_most.push(0);
        }
        let loaded = [&keys[..lasting], &keys[lasting.max(keys.len() - 4)..]].concat();
        let mut before = Vec::new();
        for key in &loaded {
            before.push((key.seen(), gateway.used(&key.text).await));
        }
        let called_before = calls.load(Ordering::SeqCst);
        load_and_kill(&mut gateway, &loaded, random).await;
        assert_intact(gateway.dir());
        for _ in 0..random.below(3) {
            // What a start puts right is put right once, even if that start is killed as well.
            command.start_and_kill(Duration::from_micros(random.below(60_000)));
        }
        gateway.restart();
        let mut counted_of_all = 0;
        for (key, (seen_before, used_before)) in loaded.iter().zip(before) {
            let (seen, used) = (key.seen(), gateway.used(&key.text).await);
            let charged = seen.charged - seen_before.charged;
            let under_way = (seen.sent - seen.heads) - (seen_before.sent - seen_before.heads);
            let counted = used.checked_sub(used_before);
            let what = format!("cycle {cycle}, limit {}: {used_before} → {used}", key.limit);
            let counted = counted.unwrap_or_else(|| panic!("{what}: less than before"));
            assert!(charged <= counted, "{what}: {charged} completed, {counted} counted");
            assert!(
                counted <= charged + under_way,
                "{what}: {charged} completed and {under_way} under way, {counted} counted"
            );
            assert!(used <= key.limit || key.limit == 0, "{what}");
            counted_of_all += counted;
            let place = keys.iter().position(|known| Arc::ptr_eq(known, key)).unwrap();
            stranded_at_most[place] += under_way;
        }
        let called = calls.load(Ordering::SeqCst) - called_before;
        assert!(
            called <= counted_of_all,
            "cycle {cycle}: {called} called, {counted_of_all} counted"
        );
    }
    let seen: Vec<Seen> = keys.iter().map(|key| key.seen()).collect();
    for (key, under_way) in keys.into_iter().zip(stranded_at_most) {
        if key.limit > 0 {
            let (limit, charged, used) =
                (key.limit, key.seen().charged, gateway.used(&key.text).await);
            let rest = exhaust(&gateway, key.clone()).await;
            assert_eq!(rest, limit - used, "limit {limit}: what is left can be used");
            let served = charged + rest;
            assert!(served <= limit, "{served} served of {limit}");
            assert!(served + under_way >= limit, "{served} served of {limit}, {under_way} lost");
        }
    }
    gateway.kill9();
    assert_intact(gateway.dir());
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum();
    (sum(|seen| seen.charged), sum(|seen| seen.sent))
}

async fn cycles(durability: &str) {
    let mut random = Random::seeded(durability);
    let all = env::var("TOWER_QUOTA_CRASHES").map_or(2 * CYCLES, |all| all.parse().unwrap());
    let all = all.div_ceil(2);
    let (mut done, mut charged, mut sent) = (0, 0, 0);
    while done < all {
        let cycles = CYCLES.min(all - done);
        let seen = run(durability, cycles, &mut random).await;
        (done, charged, sent) = (done + cycles, charged + seen.0, sent + seen.1);
        println!("{durability}: {done} cycles, {charged} charged responses of {sent} sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_requests_are_counted_exactly_after_each_kill_9() {
    cycles("process").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_requests_are_counted_exactly_after_each_kill_9_with_power() {
    cycles("power").await;
}
