//! What a process keeps locked while it does not react, at any point of a checkpoint.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::Semaphore,
};
use tower_quota::{
    key::{KeyId, Limit},
    store::{
        Demand, QuotaStore, RequestOutcome, ReserveOutcome, UsageEvent, UsageSink,
        postgres::{PostgresOptions, PostgresStore},
    },
};

use crate::{
    common::{
        eventually,
        postgres::{Postgres, psql},
    },
    proxy,
};

/// Holds back the responses of a transaction, so that its process waits like a stopped one.
struct Hold {
    /// Number of responses that still pass, and one more; 0 if all do.
    left: AtomicUsize,
    released: Semaphore,
}

impl Hold {
    const NEVER: usize = 0;

    fn new() -> Self {
        Self { left: AtomicUsize::new(Self::NEVER), released: Semaphore::new(0) }
    }

    fn after(&self, responses: usize) {
        self.left.store(responses + 1, Ordering::SeqCst);
    }

    /// Whether a response is held back.
    fn holds(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 1
    }

    fn release(&self) {
        self.left.store(Self::NEVER, Ordering::SeqCst);
        self.released.add_permits(1);
    }

    async fn pass(&self) {
        let count = |left: usize| (left > 1).then(|| left - 1);
        let counted = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count);
        if counted == Err(1) {
            self.released.acquire().await.unwrap().forget();
        }
    }
}

/// Starts a proxy before the server that holds back responses of transactions. Returns the URL.
async fn holding_proxy(url: &str, hold: Arc<Hold>) -> String {
    proxy::start(url, move |client, server| relay(client, server, hold.clone())).await
}

async fn relay(client: TcpStream, server: UnixStream, hold: Arc<Hold>) {
    let (mut from_server, mut to_server) = server.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    // The writer's connection is the only one with transactions.
    let begins = Arc::new(AtomicBool::default());
    let has_begun = begins.clone();
    let requests = async move {
        let mut bytes = [0; 1 << 14];
        while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
            if bytes[..length].windows(5).any(|part| part == b"BEGIN") {
                begins.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    };
    let responses = async move {
        let mut bytes = [0; 1 << 14];
        while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
            if has_begun.load(Ordering::SeqCst) {
                hold.pass().await;
            }
            if to_client.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(requests, responses);
}

/// Tables whose rows several nodes change.
const SHARED: [&str; 7] = [
    "daily_usage",
    "usage_totals",
    "model_totals",
    "quarter_units",
    "quarter_requests",
    "counters",
    "leases",
];

/// Number of rows of a table that another transaction would have to wait for.
fn locked_rows(url: &str, table: &str) -> u64 {
    let sql = format!(
        "SELECT (SELECT count(*) FROM {table}) - (SELECT count(*) FROM (
             SELECT FROM {table} FOR NO KEY UPDATE SKIP LOCKED) AS free)"
    );
    psql(url, &sql).parse().unwrap()
}

/// Whether the writer's transaction is open and waits for the process, once the server has executed all that was sent.
async fn is_in_transaction(url: &str) -> bool {
    let in_state = |state: &str| {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = '{state}'"
        );
        psql(url, &sql) != "0"
    };
    eventually("the server is idle", async || !in_state("active")).await;
    in_state("idle in transaction")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_process_that_stops_in_a_checkpoint_locks_no_row_of_other_nodes() {
    let (directory, hold) = (tempfile::tempdir().unwrap(), Arc::new(Hold::new()));
    let url = Postgres::shared().create_database();
    let proxy = holding_proxy(&url, hold.clone()).await;
    let journal = directory.path().join("quota");
    let store =
        PostgresStore::open(PostgresOptions::new(&proxy, journal).unwrap().connections(2)).await;
    let store = store.unwrap();
    store.expect_events();
    let use_one = async || {
        let demand = Demand::new(KeyId::from("alice"), Limit::Units(500), SystemTime::now());
        let outcome = store.reserve(&demand).await.unwrap();
        assert!(matches!(outcome, ReserveOutcome::Admitted { .. }));
        let mut event = UsageEvent::new(SystemTime::now());
        event.key_id = Some(KeyId::from("alice"));
        event.model = Some("model".to_owned());
        event.outcome = RequestOutcome::Succeeded;
        store.record(event);
    };
    use_one().await;
    store.flush().await.unwrap();
    for table in SHARED {
        assert_ne!(psql(&url, &format!("SELECT count(*) FROM {table}")), "0", "{table} has a row");
        assert_eq!(locked_rows(&url, table), 0, "{table} at rest");
    }

    let mut held = 0;
    for responses in 0.. {
        hold.after(responses);
        use_one().await;
        let flushed = store.flush();
        eventually("a response is held back", async || hold.holds()).await;
        let is_open = is_in_transaction(&url).await;
        if is_open {
            held += 1;
            for table in SHARED {
                let locked = locked_rows(&url, table);
                assert_eq!(locked, 0, "rows of {table} locked before response {responses}");
            }
        }
        hold.release();
        flushed.await.unwrap();
        if !is_open {
            break;
        }
    }
    assert!(held > 2, "held back {held} responses of a transaction");
    store.close().await.unwrap();
}
