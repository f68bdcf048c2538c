//! Refunds buy nothing: there are at most as many a day as the limit, and none reaches another reset
//! than that of its unit.

use crate::common::{Gateway, GatewayCommand, Rogue, Upstream, Wire, full};
use http::{Method, Response};
use serde_json::json;
use tokio::task::JoinSet;

fn command(upstream_base_url: String) -> GatewayCommand {
    GatewayCommand::before(upstream_base_url).env("RUST_LOG", "error")
}

/// Provokes errors until the key is used up; returns how many of them the upstream made.
async fn provoke_until_rejected(gateway: &Gateway, key: &str) -> usize {
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
async fn at_most_twice_the_limit_of_10_000_provoked_errors_reach_the_upstream() {
    const LIMIT: usize = 150;
    let failing = |_| Response::builder().status(500).body(full("")).unwrap();
    let upstream = Upstream::start(failing).await;
    let gateway = command(upstream.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": LIMIT})).await;
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
    provoke_until_rejected(&gateway, &key).await;
    assert_eq!(upstream.count(), 2 * LIMIT, "each unit was given back once, and used again");
    assert_eq!(gateway.used(&key).await, LIMIT as u64);
    assert_eq!(gateway.usage(&key).await["requests"]["refunded"], LIMIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn provoked_errors_are_refunded_as_often_as_the_limit() {
    for (status, shown) in [(302, 502), (403, 502), (429, 503), (500, 500)] {
        let response = move |_| Response::builder().status(status).body(full("")).unwrap();
        let upstream = Upstream::start(response).await;
        let gateway = command(upstream.base_url()).start();
        let key = gateway.create_key(json!({"daily_limit": 3})).await;
        let mut wire = Wire::connect(gateway.address()).await.unwrap();
        for _ in 0..6 {
            assert_eq!(wire.post(&key, "{}").await.unwrap().0, shown, "{status}");
        }
        assert_eq!(wire.post(&key, "{}").await.unwrap().0, 429, "{status}");
        assert_eq!((upstream.count(), gateway.used(&key).await), (6, 3), "{status}");
        assert_eq!(gateway.usage(&key).await["requests"]["refunded"], 3, "{status}");
    }
}

/// Two of every three errors are followed by another process.
async fn refunds_are_remembered_after(end: impl Fn(&mut Gateway)) {
    let rogue = Rogue::start().await;
    let mut gateway = command(rogue.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 8})).await;
    for provoked in 1..=6 {
        let mut wire = Wire::connect(gateway.address()).await.unwrap();
        assert_eq!(wire.post(&key, "500").await.unwrap().0, 500);
        assert_eq!(gateway.used(&key).await, 0);
        if provoked % 3 > 0 {
            end(&mut gateway);
            gateway.restart();
            assert_eq!(gateway.used(&key).await, 0);
        }
    }
    assert_eq!(provoke_until_rejected(&gateway, &key).await, 10, "two refunds were left");
    assert_eq!((rogue.count(), gateway.used(&key).await), (16, 8));
    end(&mut gateway);
    gateway.restart();
    assert_eq!(provoke_until_rejected(&gateway, &key).await, 0, "no refund is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_refunds_survives_kill_9() {
    refunds_are_remembered_after(Gateway::kill9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_refunds_survives_a_clean_shutdown() {
    let terminate = |gateway: &mut Gateway| {
        gateway.terminate();
        assert!(gateway.wait().success());
    };
    refunds_are_remembered_after(terminate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_after_a_reset_does_not_change_the_new_count() {
    let rogue = Rogue::start().await;
    let mut gateway = command(rogue.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 2})).await;
    let mut late = Wire::connect(gateway.address()).await.unwrap();
    late.write(&key, "held 500").await.unwrap();
    rogue.reached_by(1).await;
    assert_eq!(gateway.usage(&key).await["used"], 1);
    let reset = gateway.admin(Method::POST, "/admin/reset-usage", &json!({"key": key})).await;
    assert_eq!(reset["used"], 0);
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    assert_eq!(wire.post(&key, "200").await.unwrap().0, 200);
    rogue.release(1);
    assert_eq!(late.head().await.unwrap().status, 500);
    assert_eq!(gateway.used(&key).await, 1, "the unit used since the reset stays");

    gateway.restart();
    assert_eq!(gateway.used(&key).await, 1, "after a restart, too");
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    assert_eq!(wire.post(&key, "200").await.unwrap().0, 200);
    assert_eq!(wire.post(&key, "200").await.unwrap().0, 429);
}
