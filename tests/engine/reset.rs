//! `reset-usage` while requests run: each unit belongs to one side of each reset.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::common::{
    Gateway, GatewayCommand, Random, Rogue, Upstream, Wire, chat_json, json_response,
};
use http::Method;
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinSet};

const CLIENTS: usize = 32;
const RESETS: usize = 10;
const LIMIT: usize = 100;

/// From just before a request until just after its response.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: Instant,
    to: Instant,
}

async fn reset(gateway: &Gateway, key: &str) {
    let reset = gateway.admin(Method::POST, "/admin/reset-usage", &json!({"key": key})).await;
    assert_eq!((&reset["success"], &reset["used"]), (&json!(true), &json!(0)));
}

/// How many more requests are served until one is rejected.
async fn rest(gateway: &Gateway, key: &str) -> usize {
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    for served in 0..1_000 {
        match wire.post(key, "200").await.unwrap().0 {
            200 => {}
            429 => return served,
            status => panic!("{status}"),
        }
    }
    panic!("never used up")
}

/// What the clients and the operator have seen.
struct Seen {
    served: Vec<Span>,
    rejected: Vec<Span>,
    resets: Vec<Span>,
}

impl Seen {
    /// The reset that begins epoch `n`; none begins the first.
    fn epoch(&self, n: usize) -> Option<Span> {
        n.checked_sub(1).map(|reset| self.resets[reset])
    }

    /// Checks that each response can be explained by resets that each happened at one instant between
    /// its call and its reply.
    fn check(&self) {
        let epochs = self.resets.len() + 1;
        for first in 0..epochs {
            let begun = self.epoch(first);
            for last in first..epochs {
                // Surely of these epochs: sent after the first began, completed before the
                // reset that ends the last was called.
                let ending = self.resets.get(last);
                let surely = |span: &&Span| {
                    begun.is_none_or(|begun| begun.to < span.from)
                        && ending.is_none_or(|ending| span.to < ending.from)
                };
                let served = self.served.iter().filter(surely).count();
                let most = LIMIT * (last - first + 1);
                assert!(served <= most, "{served} of epochs {first} to {last}, at most {most}");
                if first != last {
                    continue;
                }
                // A rejection that is surely of this epoch comes after its whole limit was taken.
                for rejected in self.rejected.iter().filter(surely) {
                    let possible = |span: &&Span| {
                        begun.is_none_or(|begun| begun.from < span.to) && span.from < rejected.to
                    };
                    let taken = self.served.iter().filter(possible).count();
                    assert!(taken >= LIMIT, "rejected in epoch {first} after {taken}");
                }
            }
        }
    }
}

/// Loads the key, and resets it as often as [`RESETS`] meanwhile.
async fn load(gateway: &Gateway, key: &str, random: &mut Random) -> Seen {
    let (completed, changed) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (gateway, key) = (gateway.address(), key.to_owned());
        let (completed, changed, over) = (completed.clone(), changed.clone(), over.clone());
        clients.spawn(async move {
            let mut wire = Wire::connect(gateway).await.unwrap();
            let (mut served, mut rejected) = (Vec::new(), Vec::new());
            while !over.load(Ordering::SeqCst) {
                let from = Instant::now();
                let status = wire.post(&key, "200").await.unwrap().0;
                let span = Span { from, to: Instant::now() };
                match status {
                    200 => served.push(span),
                    429 => rejected.push(span),
                    status => panic!("{status}"),
                }
                completed.fetch_add(1, Ordering::SeqCst);
                changed.notify_one();
            }
            (served, rejected)
        });
    }
    let mut resets = Vec::new();
    for _ in 0..RESETS {
        // About half of the resets come before the limit is reached.
        let next = completed.load(Ordering::SeqCst) + 1 + random.below(2 * LIMIT as u64);
        while completed.load(Ordering::SeqCst) < next {
            let waited = tokio::time::timeout(crate::common::DEADLINE, changed.notified()).await;
            assert!(waited.is_ok(), "the clients get responses");
        }
        let from = Instant::now();
        reset(gateway, key).await;
        resets.push(Span { from, to: Instant::now() });
    }
    if random.below(2) == 0 {
        over.store(true, Ordering::SeqCst);
    }
    let until = completed.load(Ordering::SeqCst) + random.below(2 * LIMIT as u64);
    while completed.load(Ordering::SeqCst) < until && !over.load(Ordering::SeqCst) {
        changed.notified().await;
    }
    over.store(true, Ordering::SeqCst);
    let (served, rejected): (Vec<_>, Vec<_>) = clients.join_all().await.into_iter().unzip();
    Seen { served: served.concat(), rejected: rejected.concat(), resets }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_atomic_under_32_clients() {
    let mut random = Random::seeded("reset");
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let mut gateway = GatewayCommand::before(upstream.base_url()).start();
    for round in 0..3 {
        let key = gateway.create_key(json!({"daily_limit": LIMIT})).await;
        assert_eq!(gateway.used(&key).await, 0);
        let before = upstream.count();
        let seen = load(&gateway, &key, &mut random).await;
        seen.check();
        let total = seen.served.len();
        assert_eq!(
            total,
            upstream.count() - before,
            "what is served, and nothing else, reaches the upstream"
        );
        assert!(total <= LIMIT * (RESETS + 1));
        let record = gateway.admin(Method::GET, &format!("/admin/keys/{key}"), &Value::Null).await;
        assert_eq!(record["total_used"], total, "what was reset stays in the history");

        // Since all is quiet, what is used is what the last epoch has taken.
        let last = seen.resets[RESETS - 1];
        let surely = seen.served.iter().filter(|span| last.to < span.from).count();
        let possibly = seen.served.iter().filter(|span| last.from < span.to).count();
        let counted = gateway.used(&key).await as usize;
        assert!((surely..=possibly).contains(&counted), "{surely} ≤ {counted} ≤ {possibly}");
        if round % 2 == 0 {
            gateway.restart();
            assert_eq!(gateway.used(&key).await as usize, counted, "after kill -9, too");
        }
        assert_eq!(rest(&gateway, &key).await, LIMIT - counted);
        reset(&gateway, &key).await;
        assert_eq!(rest(&gateway, &key).await, LIMIT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_reserved_before_a_reset_belongs_to_the_old_count() {
    let rogue = Rogue::start().await;
    let mut gateway = GatewayCommand::before(rogue.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    let mut wires = Vec::new();
    for taken in 1..=3 {
        let mut wire = Wire::connect(gateway.address()).await.unwrap();
        wire.write(&key, "held 200").await.unwrap();
        rogue.reached_by(taken).await;
        wires.push(wire);
    }
    assert_eq!(gateway.usage(&key).await["used"], 3);
    reset(&gateway, &key).await;
    assert_eq!(gateway.used(&key).await, 0);
    rogue.release(3);
    for mut wire in wires {
        assert_eq!(wire.head().await.unwrap().status, 200);
    }
    assert_eq!(gateway.used(&key).await, 0);
    gateway.restart();
    assert_eq!(gateway.used(&key).await, 0, "after kill -9, too");
    assert_eq!(rest(&gateway, &key).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_reset_holds_after_kill_9() {
    let rogue = Rogue::start().await;
    let mut gateway = GatewayCommand::before(rogue.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 20})).await;
    for _ in 0..3 {
        assert_eq!(rest(&gateway, &key).await, 20);
        reset(&gateway, &key).await;
        gateway.restart();
        assert_eq!(gateway.used(&key).await, 0);
    }
}
