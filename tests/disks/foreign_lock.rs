//! Another process holds SQLite's write lock, as a `sqlite3` shell with an open transaction does.
//!
//! An engine may go on meanwhile if it can count elsewhere; what it cannot count it rejects.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::{
    common::{Client, eventually},
    load::Load,
    scene::{Outcome, Scene, TIME_LIMIT},
};

const HELD: Duration = Duration::from_secs(10);

fn hold(scene: &Scene) -> Connection {
    let other = Connection::open(scene.database()).unwrap();
    other.busy_timeout(Duration::from_secs(5)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_held_for_ten_seconds_costs_no_count_and_service_returns() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start(dir.path().join("quota.db")).await;
    let load = Load::start(&scene);
    load.serve(20).await;
    let (other, locked) = (hold(&scene), Instant::now());
    let sent_since_lock = || load.sent().iter().filter(|sent| sent.begun > locked).count();
    eventually("ten seconds under load", || async {
        locked.elapsed() >= HELD && sent_since_lock() >= 20
    })
    .await;
    other.execute_batch("ROLLBACK").unwrap();
    load.until_served(Instant::now()).await;
    load.finish_with_partial_outage(locked).await;
    scene.check_after_kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_loaded_during_a_lock_is_counted_or_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start(dir.path().join("quota.db")).await;
    let mut keys = Vec::new();
    for _ in 0..8 {
        keys.push(scene.log.issue(&scene.gateway, 2).await.unwrap());
    }
    let other = hold(&scene);
    let (client, url) = (Client::http1(), scene.gateway.url(""));
    for key in &keys {
        let sent_at = Instant::now();
        let outcome = scene.log.request(&client, &url, key).await;
        assert!(!matches!(outcome, Outcome::Wrong(_) | Outcome::Exhausted), "{outcome:?}");
        assert!(sent_at.elapsed() < TIME_LIMIT, "{outcome:?} after {:?}", sent_at.elapsed());
    }
    other.execute_batch("ROLLBACK").unwrap();
    for key in &keys {
        eventually("the key's units", || async {
            scene.log.request(&client, &url, key).await == Outcome::Exhausted
        })
        .await;
    }
    scene.check_counts().await;
    let all = scene.log.sent_since(0);
    for key in &keys {
        let completed = |sent: &&_| is_response(sent, &key.text);
        assert_eq!(all.iter().filter(completed).count(), 2, "every unit is spendable");
    }
    scene.check_after_kill().await;
}

fn is_response(sent: &crate::scene::Sent, key: &str) -> bool {
    &*sent.key == key && sent.outcome == Outcome::Completed
}
