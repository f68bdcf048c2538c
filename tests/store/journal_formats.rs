//! Journals that earlier versions have written are read with all that they count.

use std::{fs, time::Duration};

use rusqlite::Connection;
use tower_quota::store::{
    RequestOutcome,
    report::{RequestQuery, UsageQuery, UsageReader},
    sqlite::{SqliteOptions, SqliteStore},
};

/// The length of a segment from its creation on; only its used part is kept here.
const SEGMENT_LENGTH: u64 = 16 << 20;

/// Seven requests of one key, written by the version with schema 8 and ended by `kill -9`: one was
/// refunded, and the last one had no response yet.
#[tokio::test]
async fn a_journal_with_payloads_of_version_1_opens_with_its_counts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quota.db");
    let database = Connection::open(&path).unwrap();
    database.execute_batch(include_str!("journals/payload-1.sql")).unwrap();
    database.pragma_update(None, "user_version", 8).unwrap();
    drop(database);
    let segment = directory.path().join("quota.db.journal.1");
    fs::write(&segment, include_bytes!("journals/payload-1.journal")).unwrap();
    fs::File::options().write(true).open(&segment).unwrap().set_len(SEGMENT_LENGTH).unwrap();

    let options = SqliteOptions::new(path).boot("test").retention_days(36_500);
    let store = SqliteStore::open(options).unwrap();
    assert_eq!(store.losses(), [""; 0]);
    let day = "2026-11-22".parse().unwrap();
    let mut query = UsageQuery::days(day, day);
    (query.group_by.key, query.group_by.day) = (true, false);
    let report = store.report(query).await.unwrap();
    let [row] = &*report.rows else { panic!("{report:?}") };
    assert_eq!(row.used, Some(6));
    let figures = row.figures;
    let counts = [figures.requests, figures.succeeded, figures.failed, figures.refunded];
    assert_eq!(counts, [7, 5, 2, 1]);
    assert_eq!((figures.tokens.total, figures.tokens.cached), (75, Some(15)));

    let requests = store.requests(RequestQuery::latest(10)).await.unwrap();
    assert_eq!(requests.len(), 6);
    let failed = &requests[4].event;
    assert_eq!((failed.outcome, failed.status), (RequestOutcome::Failed, Some(502)));
    assert_eq!(failed.code.as_deref(), Some("upstream_failed"));
    assert_eq!((failed.units, failed.refunded), (0, true));
    let first = &requests[5].event;
    assert_eq!(first.request_id.as_deref(), Some("request-0"));
    assert_eq!(first.time_to_first_byte, Some(Duration::from_micros(251_500)));
    assert_eq!(first.model.as_deref(), Some("deepseek-chat"));
    store.close().await.unwrap();
}
