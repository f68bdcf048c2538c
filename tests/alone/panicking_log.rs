//! The threads of a store outlive a log that panics, as one does that prints to a closed pipe.

use std::{
    fs, panic, thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tower_quota::store::sqlite::{SqliteOptions, SqliteStore};
use tracing::{
    Event, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};

/// Panics on the store's threads, whatever is logged there.
struct PanickingLog;

fn is_thread_of_the_store() -> bool {
    thread::current().name().is_some_and(|name| name.starts_with("quota-"))
}

impl Subscriber for PanickingLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        assert!(!is_thread_of_the_store(), "failed printing to stderr");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

async fn until(store: &SqliteStore, is_up: bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while store.probe().await.is_ok() != is_up {
        assert!(Instant::now() < until, "timed out: is_up = {is_up}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_recovers_and_its_checks_go_on_despite_a_panicking_log() {
    tracing::subscriber::set_global_default(PanickingLog).unwrap();
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !is_thread_of_the_store() {
            report(panic);
        }
    }));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("quota.db");
    let store = SqliteStore::open(SqliteOptions::new(&file)).unwrap();
    for _ in 0..2 {
        let other = Connection::open(&file).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        until(&store, false).await;
        other.execute_batch("ROLLBACK").unwrap();
        until(&store, true).await;

        let away = dir.path().join("away.db");
        fs::rename(&file, &away).unwrap();
        until(&store, false).await;
        fs::rename(&away, &file).unwrap();
        until(&store, true).await;
    }
    assert!(store.is_alive());
    store.close().await.unwrap();
}
