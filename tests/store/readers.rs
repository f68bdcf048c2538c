//! What other programs read of the file while a store writes to it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use rusqlite::{Connection, OpenFlags};
use tower_quota::{
    key::{KeyId, Limit},
    store::{
        Demand, QuotaStore, ReserveOutcome,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

/// Age that `docs/guarantees.md` allows.
const MAX_AGE: Duration = Duration::from_secs(5);
const KEYS: u64 = 2_000;

/// Returns the number of units in the file.
fn units(file: &Connection) -> u64 {
    file.query_row("SELECT coalesce(sum(used), 0) FROM daily_usage", [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_at_most_five_seconds_behind_however_many_keys_are_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quota.db");
    let store = SqliteStore::open(SqliteOptions::new(&path)).unwrap();
    let file = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    file.busy_timeout(Duration::from_secs(10)).unwrap();
    let (begun, mut counted) = (Instant::now(), 0);
    // Numbers of units, and when they were counted.
    let mut history = VecDeque::new();
    while begun.elapsed() < 2 * MAX_AGE {
        for _ in 0..1_000 {
            let key = KeyId::from(&*format!("key_{}", counted % KEYS));
            let demand = Demand::new(key, Limit::Unlimited, SystemTime::now());
            let outcome = store.reserve(&demand).await.unwrap();
            assert!(matches!(outcome, ReserveOutcome::Admitted { .. }));
            counted += 1;
        }
        history.push_back((Instant::now(), counted));
        let read_at = Instant::now();
        let read = units(&file);
        while let Some((at, counted)) = history.front().filter(|(at, _)| *at + MAX_AGE <= read_at) {
            assert!(read >= *counted, "{read} of {counted} units after {:?}", at.elapsed());
            history.pop_front();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.close().await.unwrap();
    assert_eq!(units(&file), counted);
}
