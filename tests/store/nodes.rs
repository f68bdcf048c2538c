//! Nodes: the processes that have counted in a PostgreSQL database, and the release of one that does not come back.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use tower_quota::{
    admin::store::{Actor, AdminStore, AuditQuery, NodeState, NodeSummary, ReleaseOutcome},
    key::{KeyId, Limit},
    store::{
        Demand, QuotaStore, Reservation, ReserveOutcome, UsageSink,
        postgres::{self, OpenError, OpenErrorKind, PostgresOptions, PostgresStore},
    },
};

use crate::common::{
    DEADLINE, eventually,
    postgres::{Postgres, connect, psql},
};

const LIMIT: u64 = 100;

fn options(url: &str, journal: &Path) -> PostgresOptions {
    PostgresOptions::new(url, journal).unwrap().connections(2)
}

async fn open(url: &str, journal: &Path) -> PostgresStore {
    PostgresStore::open(options(url, journal)).await.unwrap()
}

fn demand(subject: &str) -> Demand {
    Demand::new(KeyId::from(subject), Limit::Units(LIMIT), SystemTime::now())
}

async fn reserve(store: &PostgresStore, subject: &str) -> Option<Box<dyn Reservation>> {
    match store.reserve(&demand(subject)).await {
        Ok(ReserveOutcome::Admitted { mut reservation, .. }) => {
            let committed = std::future::poll_fn(|cx| reservation.poll_committed(cx)).await;
            committed.is_ok().then_some(reservation)
        }
        _ => None,
    }
}

/// Ends the process of a store, as far as the database and the journal know.
/// Ends the only store of a database. The server notices the end of its connections a little later.
async fn end(store: PostgresStore, url: &str) {
    store.close().await.unwrap();
    drop(store);
    let is_closed =
        || async { nodes(url).await.iter().all(|node| node.state == NodeState::Closed) };
    eventually("the node is closed", is_closed).await;
}

/// Lets the database forget that it has seen its nodes within the last seconds.
fn pass_a_minute(url: &str) {
    psql(url, "UPDATE nodes SET seen_at = seen_at - interval '1 minute'");
}

/// Reserves units of a subject until the store has leased more of them.
async fn reserve_some(store: &PostgresStore, subject: &str) -> Vec<Box<dyn Reservation>> {
    let leased_before = store.nodes().await.unwrap()[0].leased_units;
    let mut reserved = Vec::new();
    loop {
        reserved.push(reserve(store, subject).await.unwrap());
        if store.nodes().await.unwrap()[0].leased_units > leased_before {
            return reserved;
        }
    }
}

/// A database in which node 1 has used one unit of `alice` and some of `bob`, and has ended without its last
/// checkpoint. Returns its URL, and the number of used units.
async fn with_lost_node(server: &Postgres, journal: &Path) -> (String, u64) {
    let url = server.create_database();
    let store = open(&url, journal).await;
    store.expect_events();
    let mut open_requests = vec![reserve(&store, "alice").await.unwrap()];
    open_requests.extend(reserve_some(&store, "bob").await);
    store.flush().await.unwrap();
    server.stop("immediate");
    store.close().await.unwrap_err();
    server.resume();
    (url, open_requests.len() as u64)
}

/// Returns why a store is not opened, once the connections and tasks of one that was dropped have ended.
async fn rejection(options: impl Fn() -> PostgresOptions) -> OpenError {
    let since = Instant::now();
    loop {
        let error = PostgresStore::open(options()).await.unwrap_err();
        let is_in_use = error.to_string().contains("in use by another process");
        if error.kind() != OpenErrorKind::Temporary && !is_in_use {
            return error;
        }
        assert!(since.elapsed() < DEADLINE, "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn nodes(url: &str) -> Vec<NodeSummary> {
    postgres::nodes(&options(url, Path::new("unused"))).await.unwrap()
}

async fn release(url: &str, number: u32) -> ReleaseOutcome {
    let by = Actor::new("command_line", None);
    postgres::release_node(&options(url, Path::new("unused")), number, by).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_node_is_listed_as_it_begins_counts_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let url = Postgres::shared().create_database();
    let unused = options(&url, Path::new("unused"));
    let error = postgres::nodes(&unused).await.unwrap_err();
    assert!(error.to_string().contains("start the gateway once"), "{error}");

    let store = open(&url, &directory.path().join("a")).await;
    let [node] = &store.nodes().await.unwrap()[..] else { panic!() };
    assert_eq!((node.number, node.state, node.is_this), (1, NodeState::InUse, true));
    assert_eq!((node.id.len(), node.leased_units, node.pending_records), (32, 0, Some(0)));

    drop(reserve_some(&store, "alice").await);
    drop(reserve_some(&store, "bob").await);
    let [node] = &store.nodes().await.unwrap()[..] else { panic!() };
    assert_eq!(node.leased_keys, 2);
    assert!((2..2 * LIMIT).contains(&node.leased_units), "{node:?}");
    // To others it is known by the database alone.
    let [same] = &nodes(&url).await[..] else { panic!() };
    assert_eq!((same.is_this, same.pending_records), (false, None));
    assert_eq!((&same.id, same.leased_units), (&node.id, node.leased_units));

    end(store, &url).await;
    let [closed] = &nodes(&url).await[..] else { panic!() };
    assert_eq!((closed.state, closed.leased_units), (NodeState::Closed, 0));
    assert_eq!(closed.pending_records, Some(0));
    // The same journal is the same node.
    let store = open(&url, &directory.path().join("a")).await;
    assert_eq!(nodes(&url).await[0].state, NodeState::InUse);
    end(store, &url).await;
    let store = open(&url, &directory.path().join("b")).await;
    let both: Vec<_> = store.nodes().await.unwrap();
    let both: Vec<_> = both.iter().map(|node| (node.number, node.state, node.is_this)).collect();
    assert_eq!(both, [(1, NodeState::Closed, false), (2, NodeState::InUse, true)]);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn only_a_silent_node_is_released() {
    let directory = tempfile::tempdir().unwrap();
    let url = Postgres::shared().create_database();
    let store = open(&url, &directory.path().join("a")).await;
    let reservation = reserve(&store, "alice").await.unwrap();
    store.flush().await.unwrap();
    pass_a_minute(&url);
    let is_in_state = |outcome: ReleaseOutcome, state| match outcome {
        ReleaseOutcome::NotSilent(node) => node.state == state,
        _ => false,
    };
    assert!(is_in_state(release(&url, 1).await, NodeState::InUse));
    let by = Actor::default();
    assert!(is_in_state(store.release_node(1, by.clone()).await.unwrap(), NodeState::InUse));
    for unknown in [0, 2, u32::MAX] {
        assert_eq!(release(&url, unknown).await, ReleaseOutcome::UnknownNode);
        let released = store.release_node(unknown, by.clone()).await.unwrap();
        assert_eq!(released, ReleaseOutcome::UnknownNode);
    }
    drop(reservation);
    assert!(reserve(&store, "alice").await.is_some(), "it counts as before");
    end(store, &url).await;
    assert!(is_in_state(release(&url, 1).await, NodeState::Closed));

    let server = Postgres::start(&["fsync=off"]);
    let (url, _) = with_lost_node(&server, &directory.path().join("b")).await;
    // It may be starting again.
    assert!(is_in_state(release(&url, 1).await, NodeState::InUse));
    pass_a_minute(&url);
    assert!(matches!(release(&url, 1).await, ReleaseOutcome::Released(_)));
    assert!(is_in_state(release(&url, 1).await, NodeState::Released));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn what_a_released_node_may_have_used_counts_as_used_and_its_journal_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let server = Postgres::start(&["fsync=off"]);
    let journal = directory.path().join("lost");
    let (url, used) = with_lost_node(&server, &journal).await;
    pass_a_minute(&url);
    let [lost] = &nodes(&url).await[..] else { panic!() };
    assert_eq!((lost.state, lost.pending_records), (NodeState::Silent, None));
    assert_eq!(lost.open_requests, used);
    assert!(lost.leased_keys > 0 && lost.leased_units > 0, "{lost:?}");
    let counted = || -> u64 { psql(&url, "SELECT sum(used) FROM daily_usage").parse().unwrap() };
    assert_eq!(counted(), used);

    assert_eq!(release(&url, 1).await, ReleaseOutcome::Released(Box::new(lost.clone())));
    assert_eq!(counted(), used + lost.leased_units);
    let failed = "SELECT key_id, failed FROM usage_totals ORDER BY key_id";
    assert_eq!(psql(&url, failed), format!("alice|1\nbob|{}", used - 1));
    let [released] = &nodes(&url).await[..] else { panic!() };
    assert_eq!(released.state, NodeState::Released);
    assert_eq!((released.leased_units, released.open_requests), (0, 0));

    let error = rejection(|| options(&url, &journal)).await;
    assert_eq!(error.kind(), OpenErrorKind::Other);
    assert!(error.to_string().contains("node 1, which was released"), "{error}");
    let error = rejection(|| options(&url, &journal).accept_loss(true)).await;
    assert!(error.to_string().contains("start with a new journal"), "{error}");

    // Nothing is missing to others, and nobody uses again what the node may have used.
    let store = open(&url, &directory.path().join("new")).await;
    let (mut admitted, mut held) = (0, Vec::new());
    for subject in ["alice", "bob"] {
        while let Some(reservation) = reserve(&store, subject).await {
            held.push(reservation);
            admitted += 1;
        }
    }
    assert_eq!(admitted, 2 * LIMIT - used - lost.leased_units);
    let [entry] = &store.audit(AuditQuery::latest(10)).await.unwrap()[..] else { panic!() };
    assert_eq!((&*entry.action, &*entry.actor.token_id), ("node.release", "command_line"));
    let detail: serde_json::Value = serde_json::from_str(&entry.detail).unwrap();
    assert_eq!((&detail["node"], &detail["leased_units"]), (&1.into(), &lost.leased_units.into()));
    drop(held);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn while_a_node_is_silent_its_units_are_elsewhere_and_once_it_is_released_used_up() {
    let directory = tempfile::tempdir().unwrap();
    let server = Postgres::start(&["fsync=off"]);
    let (url, _) = with_lost_node(&server, &directory.path().join("lost")).await;
    let store = open(&url, &directory.path().join("other")).await;
    let mut held = Vec::new();
    while let Some(reservation) = reserve(&store, "bob").await {
        held.push(reservation);
    }
    let outcome = store.reserve(&demand("bob")).await.unwrap();
    assert!(matches!(outcome, ReserveOutcome::Elsewhere(_)), "the lost node may use the others");

    pass_a_minute(&url);
    let released = store.release_node(1, Actor::default()).await.unwrap();
    assert!(matches!(released, ReleaseOutcome::Released(_)), "{released:?}");
    let is_used_up = || async {
        let outcome = store.reserve(&demand("bob")).await.unwrap();
        assert!(!matches!(outcome, ReserveOutcome::Admitted { .. }));
        matches!(outcome, ReserveOutcome::Exhausted(_))
    };
    eventually("its units are used up", is_used_up).await;
    assert_eq!(store.status(&demand("bob")).await.unwrap().used, LIMIT);
    drop(held);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_grant_that_is_on_its_way_while_its_node_is_released_counts_as_used() {
    let directory = tempfile::tempdir().unwrap();
    let server = Postgres::start(&["fsync=off"]);
    let (url, _) = with_lost_node(&server, &directory.path().join("lost")).await;
    pass_a_minute(&url);
    let clients = [connect(&url).await, connect(&url).await];
    let [blocker, trip] = &clients;
    blocker.batch_execute("BEGIN; SELECT FROM counters FOR UPDATE").await.unwrap();
    let grant = trip.query_one(
        "SELECT e.state, e.granted FROM nodes n JOIN leases l ON l.node = n.number,
             extend_lease(l.key_id, l.quota, l.day, l.node, n.session, '-infinity', 'infinity', NULL,
                 l.seq, l.granted, l.spent, 5, 512, 200, 200) AS e
         WHERE l.key_id = 'bob'",
        &[],
    );
    let released = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waits = |count: &'static str| {
            let url = &url;
            move || async move { psql(url, waiting) == count }
        };
        eventually("the grant waits", waits("1")).await;
        let release = release(&url, 1);
        let unblocked = async {
            eventually("the release waits for it", waits("2")).await;
            blocker.batch_execute("COMMIT").await.unwrap();
        };
        tokio::join!(release, unblocked).0
    };
    let (granted, released) = tokio::join!(grant, released);
    assert_eq!(granted.unwrap().get::<_, &str>(0), "done");
    assert!(matches!(released, ReleaseOutcome::Released(_)), "{released:?}");
    assert_eq!(psql(&url, "SELECT count(*) FROM leases WHERE granted > spent"), "0");
    let counted = "SELECT count(*) FROM counters c JOIN daily_usage d USING (key_id, quota, day)
        WHERE c.granted <> d.used";
    assert_eq!(psql(&url, counted), "0", "what was granted counts as used");
}
