//! Refunds buy nothing: there are at most as many a day as the limit, and none reaches another day
//! or another reset than that of its unit.

mod common;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use common::{Client, Gateway, GatewayCommand, Rogue, Upstream, Wire, full, noon_zone};
use http::{Method, Request, Response, request::Parts};
use http_body_util::Full;
use serde_json::json;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_quota::{
    clock::{Calendar, Clock},
    key::{DailyLimit, KeyId},
    quota::DailyQuotaLayer,
    store::{
        QuotaStore, QuotaSubject,
        memory::MemoryStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

fn command(upstream_base_url: String) -> GatewayCommand {
    GatewayCommand::new()
        .env("UPSTREAM_BASE_URL", upstream_base_url)
        .env("QUOTA_TIMEZONE", noon_zone())
        .env("RUST_LOG", "error")
}

async fn used(gateway: &Gateway, key: &str) -> u64 {
    let usage = Client::http1().get_as(key, &gateway.url("/usage")).await.json();
    usage["used"].as_u64().unwrap()
}

/// Provokes errors until the key is used up; returns how many of them the upstream made.
async fn provoke_until_refused(gateway: &Gateway, key: &str) -> usize {
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    for provoked in 0..10_000 {
        match wire.post(key, "500").await.unwrap().0 {
            500 => {}
            429 => return provoked,
            status => panic!("{status}"),
        }
    }
    panic!("never used up")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_10_000_provoked_errors_at_most_twice_the_limit_reach_the_upstream() {
    const LIMIT: usize = 150;
    let failing = |_| Response::builder().status(500).body(full("")).unwrap();
    let upstream = Upstream::start(failing).await;
    let gateway = command(upstream.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": LIMIT})).await;
    assert_eq!(used(&gateway, &key).await, 0);
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        let (gateway, key) = (gateway.address(), key.clone());
        clients.spawn(async move {
            let mut wire = Wire::connect(gateway).await.unwrap();
            let mut failed = 0;
            for _ in 0..200 {
                match wire.post(&key, "{}").await.unwrap().0 {
                    500 => failed += 1,
                    429 => {}
                    status => panic!("{status}"),
                }
            }
            failed
        });
    }
    let failed: usize = clients.join_all().await.iter().sum();
    assert_eq!(failed, upstream.count());
    assert!(failed <= 2 * LIMIT, "{failed} reached the upstream");
    provoke_until_refused(&gateway, &key).await;
    assert_eq!(upstream.count(), 2 * LIMIT, "each unit was given back once, and used again");
    assert_eq!(used(&gateway, &key).await, LIMIT as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_does_not_forget_how_many_refunds_there_were() {
    let rogue = Rogue::start().await;
    let mut gateway = command(rogue.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 8})).await;
    for provoked in 1..=6 {
        let mut wire = Wire::connect(gateway.address()).await.unwrap();
        assert_eq!(wire.post(&key, "500").await.unwrap().0, 500);
        assert_eq!(used(&gateway, &key).await, 0);
        if provoked % 2 == 0 {
            gateway.restart();
            assert_eq!(used(&gateway, &key).await, 0);
        }
    }
    assert_eq!(provoke_until_refused(&gateway, &key).await, 10, "two refunds were left");
    assert_eq!((rogue.count(), used(&gateway, &key).await), (16, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_after_a_reset_does_not_touch_what_is_used_since() {
    let rogue = Rogue::start().await;
    let mut gateway = command(rogue.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 2})).await;
    let mut late = Wire::connect(gateway.address()).await.unwrap();
    late.write(&key, "held 500").await.unwrap();
    rogue.reached_by(1).await;
    assert_eq!(used(&gateway, &key).await, 1);
    let reset = gateway.admin(Method::POST, "/admin/reset-usage", &json!({"key": key})).await;
    assert_eq!(reset["used"], 0);
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    assert_eq!(wire.post(&key, "200").await.unwrap().0, 200);
    rogue.release(1);
    assert_eq!(late.head().await.unwrap().status, 500);
    assert_eq!(used(&gateway, &key).await, 1, "the unit used since the reset stays");

    gateway.restart();
    assert_eq!(used(&gateway, &key).await, 1, "after a restart, too");
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    assert_eq!(wire.post(&key, "200").await.unwrap().0, 200);
    assert_eq!(wire.post(&key, "200").await.unwrap().0, 429);
}

/// A clock that is set by hand.
#[derive(Clone)]
struct Hands(Arc<Mutex<SystemTime>>);

/// 2026-11-23T00:00:00Z.
fn midnight() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_392_000)
}

impl Hands {
    fn at(time: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(time)))
    }

    fn set(&self, time: SystemTime) {
        *self.0.lock().unwrap() = time;
    }
}

impl Clock for Hands {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

fn subject() -> QuotaSubject {
    QuotaSubject::new(KeyId::from("alice"), DailyLimit::new(2).unwrap())
}

/// Two requests of yesterday fail after midnight, one of them before the day's first unit is taken.
async fn a_refund_after_midnight_does_not_touch_today(
    store: impl QuotaStore + Clone,
    clock: &Hands,
) {
    clock.set(midnight() - Duration::from_millis(1));
    let (arrived, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let upstream = {
        let (arrived, gate) = (arrived.clone(), gate.clone());
        service_fn(move |request: Request<()>| {
            let (arrived, gate) = (arrived.clone(), gate.clone());
            async move {
                let mut answer = Response::new(Full::<Bytes>::default());
                if request.uri().path() == "/late" {
                    arrived.notify_one();
                    gate.acquire().await.unwrap().forget();
                    *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                }
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let service = DailyQuotaLayer::new(store.clone())
        .clock(clock.clone())
        .subject(|_: &Parts| Some(subject()))
        .layer(upstream);
    let ask = |path: &str| {
        let answer = service.clone().oneshot(Request::get(path).body(()).unwrap());
        async move { answer.await.unwrap().status().as_u16() }
    };
    let mut late = JoinSet::new();
    for _ in 0..2 {
        late.spawn(ask("/late"));
        arrived.notified().await;
    }
    assert_eq!(ask("/").await, 429, "yesterday is used up");
    clock.set(midnight());
    gate.add_permits(1);
    assert_eq!(late.join_next().await.unwrap().unwrap(), 503);
    assert_eq!(store.standing(&subject(), midnight()).await.unwrap().used, 0);
    assert_eq!(ask("/").await, 200);
    gate.add_permits(1);
    assert_eq!(late.join_next().await.unwrap().unwrap(), 503);
    assert_eq!(store.standing(&subject(), midnight()).await.unwrap().used, 1);
    assert_eq!(ask("/").await, 200);
    assert_eq!(ask("/").await, 429);
}

#[tokio::test]
async fn a_refund_after_midnight_does_not_touch_today_in_memory() {
    let clock = Hands::at(midnight());
    let store = MemoryStore::with_time(Calendar::utc(), clock.clone());
    a_refund_after_midnight_does_not_touch_today(store, &clock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_after_midnight_does_not_touch_today_in_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Hands::at(midnight() - Duration::from_secs(1));
    let options = SqliteOptions::new(directory.path().join("quota.db")).clock(clock.clone());
    let store = SqliteStore::open(options.clone()).unwrap();
    a_refund_after_midnight_does_not_touch_today(store.clone(), &clock).await;
    store.close().await.unwrap();
    drop(store);
    let store = SqliteStore::open(options).unwrap();
    assert_eq!(store.standing(&subject(), midnight()).await.unwrap().used, 2, "opened again");
    store.close().await.unwrap();
}
