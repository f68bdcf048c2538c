//! What the SQLite store promises when it cannot write.

mod common;

use std::{future::poll_fn, path::Path, time::SystemTime};

use common::eventually;
use rusqlite::Connection;
use tower_quota::{
    key::{DailyLimit, KeyId},
    store::{
        Charge, QuotaStore, QuotaSubject, Refund, Verdict,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

fn subject() -> QuotaSubject {
    QuotaSubject::new(KeyId::from("alice"), DailyLimit::new(3).unwrap())
}

fn lock(path: &Path) -> Connection {
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

/// A unit and whether it was committed; `None` if it was not admitted.
async fn take(store: &SqliteStore) -> Option<(Box<dyn Charge>, bool)> {
    match store.reserve(&subject(), SystemTime::now()).await.ok()? {
        Verdict::Admitted { mut charge, .. } => {
            let committed = poll_fn(|cx| charge.poll_committed(cx)).await.is_ok();
            Some((charge, committed))
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_was_not_written_is_neither_charged_nor_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quota.db");
    let store = SqliteStore::open(SqliteOptions::new(&path)).unwrap();
    assert!(take(&store).await.unwrap().1);

    let other = lock(&path);
    let (mut lost, committed) = take(&store).await.unwrap();
    assert!(!committed);
    assert!(store.reserve(&subject(), SystemTime::now()).await.is_err(), "fail closed");
    other.execute_batch("ROLLBACK").unwrap();

    let mut admitted = 1;
    eventually("the next unit", || {
        let taken = take(&store);
        async { taken.await.is_some_and(|(_, committed)| committed) }
    })
    .await;
    admitted += 1;
    assert!(!lost.refund(Refund::Always), "it would be somebody else's unit");
    assert!(poll_fn(|cx| lost.poll_committed(cx)).await.is_err(), "it stays uncounted");
    while take(&store).await.is_some() {
        admitted += 1;
    }
    assert_eq!(admitted, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_naming_the_file_leads_to_the_same_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quota.db");
    let link = directory.path().join("link.db");
    let store = SqliteStore::open(SqliteOptions::new(&path)).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let dotted = directory.path().join(".").join("quota.db");
    for other in [&link, &dotted, &path] {
        let error = SqliteStore::open(SqliteOptions::new(other)).unwrap_err().to_string();
        assert!(error.contains("in use by another process"), "{error}");
    }
    drop(store);
    SqliteStore::open(SqliteOptions::new(&link)).unwrap();
}
