//! What a journal lacks counts as used: after a loss of power, or as it is a copy. No two processes count with one journal.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{
    invariants,
    nodes::{self, Node, Outcome, PACE},
    upstream::CountingUpstream,
};
use crate::common::{
    Client, eventually,
    postgres::{Postgres, connect, psql},
};

const LIMIT: u64 = 40;
/// Time within which some requests are served, and for which a checkpoint waits at most.
const SERVED_WITHIN: Duration = Duration::from_secs(2);

/// Sends requests until the limit is used up. Returns how many were served.
async fn use_up(node: &Node, key: &str) -> u64 {
    let (client, mut served) = (Client::http1(), 0);
    loop {
        match nodes::send(&client, node.address(), key, "key").await {
            Outcome::Served => served += 1,
            Outcome::TryAgain => tokio::time::sleep(PACE).await,
            Outcome::UsedUp => return served,
            outcome => panic!("{outcome:?}"),
        }
    }
}

/// Sends requests until this number of them was served.
async fn serves(node: &Node, key: &str, requests: u64) {
    let (until, mut served) = (Instant::now() + SERVED_WITHIN, 0);
    while served < requests {
        match nodes::send(&Client::http1(), node.address(), key, "key").await {
            Outcome::Served => served += 1,
            // On a machine that is busy, a trip may take longer than a request waits.
            Outcome::TryAgain | Outcome::Unavailable if Instant::now() < until => {
                tokio::time::sleep(PACE).await;
            }
            outcome => panic!("{outcome:?} after {served}"),
        }
    }
}

/// Serves this number of requests, of which no checkpoint is made, and ends the node.
async fn serves_without_checkpoint(node: &mut Node, url: &str, key: &str, requests: u64) {
    let blocker = connect(url).await;
    blocker.batch_execute("BEGIN; SELECT FROM nodes FOR UPDATE").await.unwrap();
    serves(node, key, requests).await;
    node.kill();
    blocker.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_gateway_with_a_copied_journal_serves_nothing_until_the_original_has_ended() {
    let (url, upstream) = (Postgres::shared().create_database(), CountingUpstream::start().await);
    let mut original = nodes::start(1, &url, &upstream).await.remove(0);
    let key = nodes::create_key(&original, "key", LIMIT).await;
    serves(&original, &key, 5).await;
    let copy = original.copy_journal();
    let settings = original.settings_of_copy(&copy);
    let gateway = tokio::task::block_in_place(|| settings.start());
    nodes::is_rejected(&gateway).await;
    let outcome = nodes::send(&Client::http1(), gateway.address(), &key, "key").await;
    assert_eq!(outcome, Outcome::Unavailable);
    serves(&original, &key, 5).await;

    // Its end has put everything into the database, so that nothing of its journal is missing.
    original.stop();
    let url_of_copy = gateway.url("/readyz");
    let is_ready = || async { Client::http1().get(&url_of_copy).await.status == 200 };
    eventually("the copy is opened", is_ready).await;
    let mut served = 10;
    while nodes::send(&Client::http1(), gateway.address(), &key, "key").await != Outcome::UsedUp {
        served += 1;
    }
    assert_eq!((served, upstream.calls("key")), (LIMIT, LIMIT));
    // What the copy has counted is missing in the original.
    drop(gateway);
    let printed = original.try_start_again().await.unwrap_err();
    assert!(printed.contains("so what was counted may be missing"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_copy_that_lacks_what_the_database_has_read_of_the_journal_is_rejected() {
    let (url, upstream) = (Postgres::shared().create_database(), CountingUpstream::start().await);
    let mut nodes = nodes::start(1, &url, &upstream).await;
    let key = nodes::create_key(&nodes[0], "key", LIMIT).await;
    let copy = nodes[0].copy_journal();
    serves(&nodes[0], &key, 5).await;
    // A call of the admin API takes a checkpoint with it.
    nodes::create_key(&nodes[0], "other", LIMIT).await;
    nodes[0].kill();
    let printed = nodes[0].start_with(copy).await.unwrap_err();
    assert!(printed.contains("does not hold what the database has read of it"), "{printed}");

    nodes[0].start_again();
    nodes[0].is_ready().await;
    assert_eq!(use_up(&nodes[0], &key).await, LIMIT - 5);
    nodes::usage_agrees(&nodes, &key, LIMIT).await;
    nodes[0].stop();
    invariants::hold_at_rest(&url);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn units_that_a_copied_journal_lacks_are_not_served_again() {
    let (url, upstream) = (Postgres::shared().create_database(), CountingUpstream::start().await);
    let mut nodes = nodes::start(1, &url, &upstream).await;
    let key = nodes::create_key(&nodes[0], "key", LIMIT).await;
    serves(&nodes[0], &key, 1).await;
    let copy = nodes[0].copy_journal();
    // The database does not know what the copy lacks.
    serves_without_checkpoint(&mut nodes[0], &url, &key, 5).await;
    nodes[0].start_with(copy).await.unwrap();
    let served = 6 + use_up(&nodes[0], &key).await;
    assert!(served <= LIMIT, "{served} of {LIMIT}");
    nodes::usage_agrees(&nodes, &key, LIMIT).await;
    nodes[0].stop();
    invariants::hold_at_rest(&url);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn units_whose_records_a_loss_of_power_has_taken_count_as_used() {
    let (url, upstream) = (Postgres::shared().create_database(), CountingUpstream::start().await);
    let mut nodes = nodes::start(2, &url, &upstream).await;
    let key = nodes::create_key(&nodes[0], "key", LIMIT).await;
    serves(&nodes[0], &key, 1).await;
    let synced = nodes[0].journal().written();
    // The trips for the later ones report that the earlier ones are used.
    serves_without_checkpoint(&mut nodes[0], &url, &key, 30).await;
    assert_ne!(nodes[0].journal().lose_since(synced), 0);
    nodes[0].journal().note_another_boot(&url);
    nodes[0].start_again();
    nodes[0].is_ready().await;
    let used = nodes[0].gateway().used(&key).await;
    assert!(used >= 31, "31 served, {used} counted");
    let served = 31 + use_up(&nodes[0], &key).await + use_up(&nodes[1], &key).await;
    assert!(served <= LIMIT, "{served} of {LIMIT}");
    nodes::usage_agrees(&nodes, &key, LIMIT).await;
    for node in &mut nodes {
        node.stop();
    }
    invariants::hold_at_rest(&url);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_start_that_ends_leases_locks_rows_in_the_order_of_checkpoints() {
    let (url, upstream) = (Postgres::shared().create_database(), CountingUpstream::start().await);
    let mut nodes = nodes::start(1, &url, &upstream).await;
    let mut node = nodes.remove(0);
    let mut keys = Vec::new();
    for label in ["a", "b"] {
        let key = nodes::create_key(&node, label, LIMIT).await;
        serves(&node, &key, 1).await;
        let id = psql(&url, &format!("SELECT id FROM api_keys WHERE label = '{label}'"));
        keys.push((id, key));
    }
    keys.sort();
    let [(first, _), (last, key)] = &keys[..] else { panic!() };
    let is_counted = || async { psql(&url, "SELECT count(*) FROM daily_usage") == "2" };
    eventually("both are counted", is_counted).await;
    serves_without_checkpoint(&mut node, &url, key, 3).await;
    node.journal().note_another_boot(&url);

    // The start has a record of the last key, and ends a lease of the first one, too.
    let checkpoint = connect(&url).await;
    let lock = |id| format!("SELECT FROM daily_usage WHERE key_id = '{id}' FOR NO KEY UPDATE");
    checkpoint.batch_execute(&format!("BEGIN; {}", lock(first))).await.unwrap();
    let mut starting = JoinSet::new();
    starting.spawn_blocking(move || {
        node.start_again();
        node
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the start waits", || async { psql(&url, waiting) == "1" }).await;
    checkpoint.batch_execute(&format!("{}; COMMIT", lock(last))).await.unwrap();
    let mut node = starting.join_next().await.unwrap().unwrap();
    node.is_ready().await;
    node.stop();
    invariants::hold_at_rest(&url);
}
