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
    net::{TcpListener, UnixStream},
};
use tower_quota::{
    admin::store::{Actor, AdminStore, KeyRef, NewKey},
    error::StoreErrorKind,
    key::{KeyId, KeyRecord, Limit, SecretKey},
    store::{
        Demand, KeyStore, QuotaStore, ReserveOutcome, UsageEvent, UsageSink,
        postgres::{OpenErrorKind, PostgresOptions, PostgresStore},
        report::{RequestQuery, UsageReader},
    },
};

use crate::common::postgres::{Postgres, psql};

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
#[expect(clippy::disallowed_methods, reason = "one task for the proxy and for each connection")]
async fn cutting_proxy(url: &str, cut: Cut) -> String {
    let (base, socket) = url.split_once("?host=").unwrap();
    let (base, socket) = (base.to_owned(), format!("{socket}/.s.PGSQL.5432"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (socket, cut) = (socket.clone(), cut.clone());
            tokio::spawn(async move {
                let Ok(mut server) = UnixStream::connect(socket).await else { return };
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
            });
        }
    });
    base.replace("quota@/", &format!("quota@{address}/"))
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
