//! Start, load, `kill -9`, verify, again and again: an answered request is counted once, and nothing
//! that was not sent is.
//!
//! `TOWER_QUOTA_CRASHES=1000 TOWER_QUOTA_SEED=… cargo test --test crash` runs more, or those of a
//! seed.

mod common;

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{Client, Gateway, GatewayCommand, Upstream, chat_json, json_answer, streaming};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

const CLIENTS: usize = 12;

/// What one key's holders have seen.
#[derive(Default)]
struct Seen {
    sent: AtomicU64,
    answered: AtomicU64,
}

struct Key {
    text: String,
    limit: u64,
    seen: Arc<Seen>,
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// Sends requests until the gateway is gone; waits out a used-up day.
async fn load(key: String, seen: Arc<Seen>, url: String, over: Arc<AtomicBool>, streamed: bool) {
    let client = Client::http1();
    let authorization = format!("Bearer {key}");
    let body = json!({"stream": streamed}).to_string();
    while !over.load(Ordering::SeqCst) {
        seen.sent.fetch_add(1, Ordering::SeqCst);
        let headers = [("authorization", authorization.as_str())];
        let Ok(answer) = client.open(Method::POST, &url, &headers, body.clone()).await else {
            continue;
        };
        match answer.status().as_u16() {
            200 => {
                seen.answered.fetch_add(1, Ordering::SeqCst);
                let _ = answer.into_body().collect().await;
            }
            429 => {
                seen.sent.fetch_sub(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
            other => panic!("{other}"),
        }
    }
}

async fn usage(gateway: &Gateway, key: &str) -> Value {
    Client::http1().get_as(key, &gateway.url("/usage")).await.json()
}

async fn crash_again_and_again(durability: &str, cycles: u64, seed: u64) {
    println!("seed {seed}");
    let upstream = Upstream::start(|request| {
        if request.body().windows(4).any(|window| window == b"true") {
            let (sender, answer) = streaming();
            for frame in 0..5 {
                let frame = format!("data: {{\"choices\":[],\"n\":{frame}}}\n\n");
                sender.send(Ok(frame.into())).unwrap();
            }
            http::Response::new(answer)
        } else {
            json_answer(chat_json().to_string())
        }
    })
    .await;
    let mut gateway = GatewayCommand::new()
        .env("UPSTREAM_BASE_URL", upstream.base_url())
        .env("UPSTREAM_API_KEY", "sk-sponsor-secret")
        .env("DURABILITY", durability)
        .start();
    let mut keys = Vec::new();
    for limit in [3, 40, 1_000, 1_000_000, 0] {
        let text = gateway.create_key(json!({"daily_limit": limit})).await;
        keys.push(Key { text, limit, seen: Arc::default() });
    }
    let mut random = seed;
    for cycle in 0..cycles {
        let over = Arc::new(AtomicBool::new(false));
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let key = &keys[client % keys.len()];
            let url = gateway.url("/v1/chat/completions");
            let (text, seen) = (key.text.clone(), key.seen.clone());
            clients.spawn(load(text, seen, url, over.clone(), client % 3 == 0));
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // The moment is what is random here: nothing is waited for.
        tokio::time::sleep(Duration::from_micros(random >> 47)).await;
        over.store(true, Ordering::SeqCst);
        gateway.restart();
        clients.join_all().await;
        for key in &keys {
            check(&gateway, key, cycle).await;
        }
    }
    for key in keys.iter().filter(|key| (1..=1_000).contains(&key.limit)) {
        use_up(&gateway, key).await;
    }
    let file = rusqlite::Connection::open(gateway.dir().join("quota.db")).unwrap();
    let ok: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(ok, "ok");
    let report: Vec<String> = keys.iter().map(Key::report).collect();
    println!("{durability}: {cycles} cycles: {}", report.join(", "));
}

impl Key {
    fn report(&self) -> String {
        let (sent, answered) =
            (self.seen.sent.load(Ordering::SeqCst), self.seen.answered.load(Ordering::SeqCst));
        format!("limit {}: {answered} answered of {sent} sent", self.limit)
    }
}

/// answered ≤ counted ≤ sent.
async fn check(gateway: &Gateway, key: &Key, cycle: u64) {
    let counted = usage(gateway, &key.text).await["used"].as_u64().unwrap();
    let answered = key.seen.answered.load(Ordering::SeqCst);
    let sent = key.seen.sent.load(Ordering::SeqCst);
    let what = format!("cycle {cycle}, limit {}", key.limit);
    assert!(answered <= counted, "{what}: {answered} answered, {counted} counted");
    assert!(counted <= sent, "{what}: {counted} counted, {sent} sent");
    assert!(key.limit == 0 || answered <= key.limit, "{what}: {answered} answered");
}

/// What is left of the day can be used, to the last unit.
async fn use_up(gateway: &Gateway, key: &Key) {
    let left = usage(gateway, &key.text).await["remaining"].as_u64().unwrap();
    let (client, url) = (Client::http1(), gateway.url("/v1/chat/completions"));
    for _ in 0..left {
        let answer = client.post_as(&key.text, &url, &json!({})).await;
        assert_eq!(answer.status, 200, "a unit of {} is stranded", key.limit);
    }
    assert_eq!(client.post_as(&key.text, &url, &json!({})).await.status, 429);
}

fn cycles() -> u64 {
    number("TOWER_QUOTA_CRASHES").unwrap_or(50) / 2
}

fn seed() -> u64 {
    number("TOWER_QUOTA_SEED").unwrap_or_else(|| std::process::id().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answered_request_is_counted_once_in_whatever_instant_the_process_is_killed() {
    crash_again_and_again("process", cycles(), seed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answered_request_is_counted_once_when_each_unit_is_synced() {
    crash_again_and_again("power", cycles(), seed()).await;
}
