//! What only a database on another machine can do: forget, not respond, respond to somebody else.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tower_quota::{
    admin::store::{Actor, AdminStore, KeyRef, NewKey},
    error::StoreErrorKind,
    key::{KeyId, KeyRecord, Limit, SecretKey},
    store::{
        Demand, KeyStore, QuotaStore, RequestOutcome, ReserveOutcome, UsageEvent, UsageSink,
        postgres::{OpenErrorKind, PostgresOptions, PostgresStore},
        report::{GroupBy, ReportPage, RequestQuery, UsageQuery, UsageReader},
    },
};

use crate::{
    common::{
        Random,
        postgres::{Postgres, psql},
    },
    proxy,
};

const ALICE: &str = "trial-alice-20261122-abcdef";

fn options(url: &str, directory: &Path) -> PostgresOptions {
    PostgresOptions::new(url, directory.join("quota")).unwrap().connections(2)
}

async fn open(url: &str, directory: &Path) -> PostgresStore {
    PostgresStore::open(options(url, directory)).await.unwrap()
}

fn demand(limit: u64) -> Demand {
    Demand::new(KeyId::from("alice"), Limit::Units(limit), std::time::SystemTime::now())
}

/// Reserves units until none is left or the store fails. Returns how many were admitted.
async fn use_up(store: &PostgresStore, limit: u64) -> u64 {
    let mut admitted = 0;
    while let Ok(ReserveOutcome::Admitted { mut reservation, .. }) =
        store.reserve(&demand(limit)).await
    {
        if std::future::poll_fn(|cx| reservation.poll_committed(cx)).await.is_err() {
            break;
        }
        admitted += 1;
    }
    admitted
}

async fn used(store: &PostgresStore) -> u64 {
    store.status(&demand(1000)).await.unwrap().used
}

/// Ends all connections to the database, as a network may.
fn end_connections(url: &str) {
    psql(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE pid <> pg_backend_pid() AND datname = current_database()",
    );
}

/// Waits until the store can be written again.
async fn recovered(store: &PostgresStore) {
    while store.flush().await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn key() -> NewKey {
    let record = KeyRecord::new(KeyId::generate(), Limit::Units(5));
    NewKey::new(SecretKey::parse(ALICE).unwrap(), record).unwrap()
}

/// What the proxy does with the next commit, or the next entry in `nodes`.
#[derive(Clone, Default)]
struct Cut(Arc<AtomicU8>);

impl Cut {
    const BEFORE: u8 = 1;
    const AFTER: u8 = 2;
    const AFTER_ENTRY: u8 = 3;

    fn arm(&self, when: u8) {
        self.0.store(when, Ordering::SeqCst);
    }

    fn take(&self, when: u8) -> bool {
        self.0.compare_exchange(when, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// Starts a proxy before the server, which cuts a connection as it is armed to. Returns the URL.
async fn cutting_proxy(url: &str, cut: Cut) -> String {
    proxy::start(url, move |client, server| relay(client, server, cut.clone())).await
}

async fn relay(mut client: TcpStream, mut server: UnixStream, cut: Cut) {
    let (mut from_client, mut from_server) = ([0; 1 << 14], [0; 1 << 14]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => match read {
                Ok(length @ 1..) => {
                    let bytes = &from_client[..length];
                    let has = |text: &[u8]| {
                        bytes.windows(text.len()).any(|part| part == text)
                    };
                    let (commits, enters) = (has(b"COMMIT"), has(b"SET session = "));
                    if commits && cut.take(Cut::BEFORE) {
                        return;
                    }
                    server.write_all(bytes).await.unwrap();
                    if commits && cut.take(Cut::AFTER)
                        || enters && cut.take(Cut::AFTER_ENTRY)
                    {
                        // Once its response has come, the commit was made.
                        while let Ok(length @ 1..) = server.read(&mut from_server).await {
                            let read = &from_server[..length];
                            if enters || read.windows(6).any(|tag| tag == b"COMMIT") {
                                return;
                            }
                        }
                        return;
                    }
                }
                _ => return,
            },
            read = server.read(&mut from_server) => match read {
                Ok(length @ 1..) => {
                    if client.write_all(&from_server[..length]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn the_caller_of_a_commit_whose_connection_breaks_learns_its_outcome() {
    let (directory, cut) = (tempfile::tempdir().unwrap(), Cut::default());
    let url = cutting_proxy(&Postgres::shared().create_database(), cut.clone()).await;
    let store = open(&url, directory.path()).await;

    cut.arm(Cut::BEFORE);
    let lost = store.create(vec![key()], Actor::default()).await.unwrap_err();
    assert_eq!(lost.kind(), StoreErrorKind::Unavailable);
    recovered(&store).await;
    assert_eq!(store.get(KeyRef::new(ALICE)).await.unwrap(), None);

    cut.arm(Cut::AFTER);
    let issued = store.create(vec![key()], Actor::default()).await.unwrap();
    recovered(&store).await;
    assert_eq!(store.get(KeyRef::new(ALICE)).await.unwrap().unwrap().record.id, issued[0].id);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_checkpoint_counts_once_whether_its_response_arrives_or_not() {
    let (directory, cut) = (tempfile::tempdir().unwrap(), Cut::default());
    let database = Postgres::shared().create_database();
    let url = cutting_proxy(&database, cut.clone()).await;
    let store = open(&url, directory.path()).await;
    let mut admitted = 0;
    for when in [Cut::BEFORE, Cut::AFTER, Cut::AFTER, Cut::BEFORE] {
        for _ in 0..3 {
            let outcome = store.reserve(&demand(100)).await.unwrap();
            assert!(matches!(outcome, ReserveOutcome::Admitted { .. }));
            admitted += 1;
        }
        cut.arm(when);
        let _ = store.flush().await;
        recovered(&store).await;
    }
    let written = psql(&database, "SELECT used FROM daily_usage");
    assert_eq!(written, admitted.to_string());
    assert_eq!(use_up(&store, 100).await, 100 - admitted);
    store.close().await.unwrap();
    assert_eq!(psql(&database, "SELECT used FROM daily_usage"), "100");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_connection_that_breaks_again_as_it_enters_does_not_displace_its_own_process() {
    let (directory, cut) = (tempfile::tempdir().unwrap(), Cut::default());
    let database = Postgres::shared().create_database();
    let url = cutting_proxy(&database, cut.clone()).await;
    let store = open(&url, directory.path()).await;
    for limit in [2, 4] {
        assert_eq!(use_up(&store, limit).await, 2);
        cut.arm(Cut::AFTER_ENTRY);
        end_connections(&database);
        while cut.0.load(Ordering::SeqCst) != 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let recovers = tokio::time::timeout(Duration::from_secs(20), recovered(&store));
        recovers.await.expect("the store recovers");
    }
    store.close().await.unwrap();
    assert_eq!(psql(&database, "SELECT used FROM daily_usage"), "4");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_connection_that_breaks_while_the_store_opens_is_a_temporary_error() {
    for when in [Cut::BEFORE, Cut::AFTER, Cut::AFTER_ENTRY] {
        let (directory, cut) = (tempfile::tempdir().unwrap(), Cut::default());
        let url = cutting_proxy(&Postgres::shared().create_database(), cut.clone()).await;
        cut.arm(when);
        let store = loop {
            match PostgresStore::open(options(&url, directory.path())).await {
                Ok(store) => break store,
                Err(error) => assert_eq!(error.kind(), OpenErrorKind::Temporary, "{error}"),
            }
        };
        assert_eq!(cut.0.load(Ordering::SeqCst), 0, "the connection was cut");
        assert_eq!(use_up(&store, 2).await, 2);
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_process_that_a_copy_of_its_journal_has_displaced_counts_no_more() {
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = Postgres::shared().create_database();
    let store = open(&url, directory.path()).await;
    store.flush().await.unwrap();
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    // The first process loses its connection again and again, until the copy has come before it.
    let displacing = loop {
        end_connections(&url);
        if let Ok(store) = PostgresStore::open(options(&url, copy.path())).await {
            break store;
        }
    };
    while store.reserve(&demand(20)).await.is_ok() {}
    assert_eq!(use_up(&displacing, 20).await, 20);
    assert_eq!(use_up(&store, 20).await, 0);
    displacing.close().await.unwrap();
    drop(displacing);
    // Nor afterwards, as the other one has counted with this journal.
    for _ in 0..3 {
        assert!(store.flush().await.is_err());
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert_eq!(use_up(&store, 1000).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_database_that_is_older_than_its_journal_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let server = Postgres::shared();
    let url = server.create_database();
    let store = open(&url, directory.path()).await;
    assert_eq!(use_up(&store, 3).await, 3);
    store.close().await.unwrap();
    drop(store);
    let name = psql(&url, "SELECT current_database()");
    let copied = loop {
        // It has to be free of connections.
        let left = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
        if server.sql("postgres", &left) == "0" {
            server.sql("postgres", &format!("CREATE DATABASE {name}_old TEMPLATE {name}"));
            break server.url(&format!("{name}_old"));
        }
    };
    let store = open(&url, directory.path()).await;
    assert_eq!(use_up(&store, 5).await, 2);
    store.flush().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let error = PostgresStore::open(options(&copied, directory.path())).await.unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::Loss, "{error}");
    assert!(error.to_string().contains("is older than the journal"), "{error}");
    let accepted = options(&copied, directory.path()).accept_loss(true);
    let store = PostgresStore::open(accepted).await.unwrap();
    assert_eq!(store.losses().len(), 1, "{:?}", store.losses());
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_server_that_ends_and_comes_back_loses_nothing_and_is_served_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = Postgres::start(&[]);
    let url = server.create_database();
    let store = open(&url, directory.path()).await;
    store.create(vec![key()], Actor::default()).await.unwrap();
    let mut admitted = 0;
    for how in ["fast", "immediate"] {
        admitted += use_up(&store, admitted + 3).await;
        server.stop(how);
        // While the server is away, the store notices at its next checkpoint, and nothing is admitted then.
        while store.flush().await.is_ok() {}
        admitted += use_up(&store, 1000).await;
        assert!(
            store.reserve(&demand(1000)).await.is_err(),
            "nothing is admitted without the server"
        );
        let secret = SecretKey::parse(ALICE).unwrap();
        assert!(store.find(&secret).await.is_err(), "no key is served that may have been changed");
        server.resume();
        recovered(&store).await;
        assert!(store.find(&secret).await.unwrap().is_some());
    }
    assert_eq!(admitted, 6);
    assert_eq!(used(&store).await, admitted);
    store.flush().await.unwrap();
    assert_eq!(psql(&url, "SELECT used FROM daily_usage"), admitted.to_string());
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_database_of_another_program_or_a_later_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let url = Postgres::shared().create_database();
    psql(&url, "CREATE TABLE api_keys (id int)");
    let error = PostgresStore::open(options(&url, directory.path())).await.unwrap_err();
    assert!(error.to_string().contains("has tables of another program"), "{error}");

    let url = Postgres::shared().create_database();
    psql(
        &url,
        "CREATE TABLE schema_version (version bigint); INSERT INTO schema_version VALUES (99)",
    );
    let error = PostgresStore::open(options(&url, directory.path())).await.unwrap_err();
    assert!(error.to_string().contains("schema version 99"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn what_postgresql_cannot_store_is_rejected_or_replaced_and_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let url = Postgres::shared().create_database();
    let store = open(&url, directory.path()).await;
    let hostile =
        Demand::new(KeyId::from("al\0ice"), Limit::Units(5), std::time::SystemTime::now());
    assert!(store.reserve(&hostile).await.is_err());
    for key in ["al\0ice", "alice"] {
        let mut event = UsageEvent::new(std::time::SystemTime::now());
        event.key_id = Some(KeyId::from(key));
        event.model = Some("mo\0del".to_owned());
        store.record(event);
    }
    store.flush().await.unwrap();
    assert_eq!(psql(&url, "SELECT key_id, model FROM usage_totals"), "alice|mo\u{fffd}del");
    assert_eq!(store.get(KeyRef::new("al\0ice")).await.unwrap(), None);
    let query = RequestQuery::latest(5).key(KeyId::from("al\0ice"));
    assert_eq!(store.requests(query).await.unwrap(), []);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_key_in_clear_is_hashed_and_masked_in_the_statement_that_inserts_it() {
    let directory = tempfile::tempdir().unwrap();
    let url = Postgres::shared().create_database();
    let store = open(&url, directory.path()).await;
    let keys =
        [ALICE, "short", "a-b", "-", "--", "sk-0123456789abcdefghij", "one-two-12345678", "ключ"];
    for key in keys {
        psql(
            &url,
            &format!("INSERT INTO api_keys (key, created_at) VALUES ('{key}', datetime('now'))"),
        );
        let row = psql(&url, "SELECT key, key_hash FROM api_keys ORDER BY seq DESC LIMIT 1");
        let Ok(secret) = SecretKey::parse(key) else {
            assert!(row.starts_with("…|"), "{row}");
            continue;
        };
        assert_eq!(row, format!("{}|{}", secret.masked(), secret.hash().to_hex()));
        let found = store.find(&secret).await.unwrap().unwrap();
        assert_eq!(found.daily_limit, Limit::Units(200), "the default one");
        assert!(found.created_at.is_some() && !found.disabled);
    }
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn the_sums_of_quarters_are_those_of_their_days() {
    const KEYS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];
    const DIFFERENCES: &str = "
        WITH sums AS (
            SELECT quarter, key_id, '' AS model, true AS is_used, days, sums FROM quarter_units
            UNION ALL SELECT quarter, key_id, model, false, days, sums FROM quarter_requests
        ), by_day AS (
            SELECT quarter, key_id, model, is_used, n AS day,
                coalesce(sums[least(n, array_upper(sums, 1))], 0)
                    - coalesce(sums[least(n - 1, array_upper(sums, 1))], 0) AS number,
                get_bit(days, n - 1) = 1 AS has_row
            FROM sums CROSS JOIN generate_series(1, 93) AS n
        ), rows AS (
            SELECT quarter_of(day) AS quarter, key_id, '' AS model, true AS is_used,
                day_of_quarter(day) AS day, used AS number
            FROM daily_usage WHERE quota = 'daily'
            UNION ALL SELECT quarter_of(day), key_id, model, false, day_of_quarter(day), requests
            FROM usage_totals
        )
        SELECT * FROM by_day FULL JOIN rows USING (quarter, key_id, model, is_used, day)
        WHERE coalesce(by_day.number, 0) <> coalesce(rows.number, 0)
            OR coalesce(has_row, false) <> (rows.number IS NOT NULL)";
    let directory = tempfile::tempdir().unwrap();
    let url = Postgres::shared().create_database();
    let store = open(&url, directory.path()).await;
    let mut random = Random::seeded("sums");
    let mut by_key = GroupBy::default();
    by_key.key = true;
    for _ in 0..30 {
        // Several checkpoints add to the same rows, in any order of days.
        for _ in 0..random.below(20) {
            let day = Duration::from_secs(86_400 * random.below(200));
            let mut event = UsageEvent::new(std::time::SystemTime::now() - day);
            event.key_id = Some(KeyId::from(KEYS[random.below(5) as usize]));
            event.model = Some(["a", "b"][random.below(2) as usize].to_owned());
            event.outcome =
                [RequestOutcome::Succeeded, RequestOutcome::Rejected][random.below(2) as usize];
            store.record(event);
        }
        store.flush().await.unwrap();
        let (first, days) = (random.below(100), random.below(100));
        let (used, key) = (random.below(9), KEYS[random.below(5) as usize]);
        psql(
            &url,
            &format!(
                "INSERT INTO daily_usage (key_id, day, used)
                 SELECT '{key}', to_char(now() AT TIME ZONE 'UTC' - n * interval '1 day', 'YYYY-MM-DD'), n % 7
                 FROM generate_series({first}::int, {first} + {days}) AS n
                 ON CONFLICT (key_id, quota, day) DO UPDATE SET used = {used};
                 INSERT INTO daily_usage (key_id, quota, day, used)
                 VALUES ('{key}', 'monthly', '2026-11-01', 5) ON CONFLICT DO NOTHING"
            ),
        );
        assert_eq!(psql(&url, DIFFERENCES), "");
        let today = store.today();
        let to = today.minus(random.below(200) as u32);
        let from = to.minus(random.below(150) as u32);
        let expected = psql(
            &url,
            &format!(
                "SELECT key_id FROM (
                     SELECT key_id, sum(used) AS used FROM daily_usage
                     WHERE quota = 'daily' AND day BETWEEN '{from}' AND '{to}' GROUP BY key_id
                 ) AS units FULL JOIN (
                     SELECT key_id, sum(requests) AS requests FROM usage_totals
                     WHERE day BETWEEN '{from}' AND '{to}' GROUP BY key_id
                 ) AS totals USING (key_id)
                 ORDER BY coalesce(used, 0) DESC, coalesce(requests, 0) DESC, key_id"
            ),
        );
        let query = UsageQuery::days(from, to).group_by(by_key);
        for limit in [1, 2, 10] {
            let mut listed = Vec::new();
            loop {
                let page = ReportPage::Busiest { skip: listed.len(), limit };
                let page = store.report(query.clone().page(page)).await.unwrap();
                listed.extend(page.rows.into_iter().map(|row| row.key_id.unwrap().to_string()));
                if !page.has_more {
                    break;
                }
            }
            assert_eq!(listed, expected.lines().collect::<Vec<_>>(), "{from} to {to}");
        }
    }
    let beyond = ReportPage::Busiest { skip: usize::MAX, limit: 1 };
    let query = UsageQuery::days(store.today(), store.today()).group_by(by_key);
    assert_eq!(store.report(query.page(beyond)).await.unwrap().rows, []);
    store.close().await.unwrap();
    let is_empty = |table: &str| psql(&url, &format!("SELECT count(*) FROM {table}")) == "0";
    assert!(!is_empty("quarter_units") && !is_empty("quarter_requests"));
}
