//! Several stores, as of several processes, that count in one PostgreSQL database.

use std::{
    future::poll_fn,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tower_quota::{
    admin::store::{Actor, AdminStore, KeyChange, KeyEdit, KeyRef, NewKey},
    clock::Period,
    key::{KeyId, KeyPatch, KeyRecord, Limit, SecretKey},
    store::{
        Demand, KeyStore, Quota, QuotaStore, Refund, Reservation, ReserveAllOutcome,
        ReserveOutcome,
        postgres::{PostgresOptions, PostgresStore},
    },
};

use crate::{
    common::{
        DEADLINE,
        postgres::{Postgres, psql},
    },
    proxy,
};

const ALICE: &str = "trial-alice-20261122-abcdef";

/// Stores on one database, each with its own journal.
struct Nodes {
    url: String,
    directories: Vec<TempDir>,
    stores: Vec<PostgresStore>,
}

impl Nodes {
    async fn start(count: usize) -> Self {
        let url = Postgres::shared().create_database();
        Self::start_through(url.clone(), &url, count).await
    }

    /// Starts stores that connect through `proxy` to the database at `url`.
    async fn start_through(url: String, proxy: &str, count: usize) -> Self {
        let mut nodes = Self { url, directories: Vec::new(), stores: Vec::new() };
        for _ in 0..count {
            let directory = tempfile::tempdir().unwrap();
            nodes.stores.push(open(proxy, directory.path()).await);
            nodes.directories.push(directory);
        }
        nodes
    }

    /// Checks that what was granted is what the leases hold, and within the limit.
    fn check(&self, limit: u64) {
        let wrong = psql(
            &self.url,
            &format!(
                "SELECT c.*, held.* FROM counters c, LATERAL (
                    SELECT coalesce(sum(l.granted - l.base), 0) AS granted,
                        bool_or(l.spent > l.granted OR l.base > l.spent) AS is_wrong
                    FROM leases l WHERE (l.key_id, l.quota, l.day) = (c.key_id, c.quota, c.day)
                ) AS held
                WHERE c.granted <> c.earlier + held.granted OR c.granted > {limit} OR held.is_wrong"
            ),
        );
        assert_eq!(wrong.trim(), "");
    }

    /// Returns the units that are counted as used in the database, and those from before resets.
    async fn counted(&self) -> (u64, u64) {
        for store in &self.stores {
            store.flush().await.unwrap();
        }
        let sums = psql(&self.url, "SELECT sum(used), sum(reset_used) FROM daily_usage");
        let (used, reset) = sums.trim().split_once('|').unwrap();
        (used.parse().unwrap_or(0), reset.parse().unwrap_or(0))
    }

    async fn close(self) {
        for store in &self.stores {
            store.close().await.unwrap();
        }
    }
}

async fn open(url: &str, directory: &Path) -> PostgresStore {
    let options = PostgresOptions::new(url, directory.join("quota")).unwrap().connections(2);
    PostgresStore::open(options).await.unwrap()
}

/// Starts a proxy before the server that passes no notifications on, like a pooler. Returns the URL.
async fn deaf_proxy(url: &str) -> String {
    proxy::start(url, async |client, server| {
        let (mut from_server, mut to_server) = server.into_split();
        let (mut from_client, mut to_client) = client.into_split();
        let requests = async move {
            let _ = copy(&mut from_client, &mut to_server).await;
        };
        let responses = async move {
            // A message is its kind and its length, which counts itself, then its content.
            while let Ok(kind) = from_server.read_u8().await {
                let length = from_server.read_u32().await.unwrap();
                let mut content = vec![0; length as usize - 4];
                from_server.read_exact(&mut content).await.unwrap();
                let message = [&[kind][..], &length.to_be_bytes(), &content].concat();
                if kind != b'A' && to_client.write_all(&message).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(requests, responses);
    })
    .await
}

fn demand(limit: u64) -> Demand {
    Demand::new(KeyId::from("alice"), Limit::Units(limit), SystemTime::now())
}

/// What became of one reservation.
enum Outcome {
    Admitted(Box<dyn Reservation>),
    UsedUp,
    Elsewhere,
}

async fn reserve(store: &PostgresStore, limit: u64) -> Outcome {
    match store.reserve(&demand(limit)).await.unwrap() {
        ReserveOutcome::Admitted { mut reservation, .. } => {
            poll_fn(|cx| reservation.poll_committed(cx)).await.unwrap();
            Outcome::Admitted(reservation)
        }
        ReserveOutcome::Exhausted(_) => Outcome::UsedUp,
        ReserveOutcome::Elsewhere(_) => Outcome::Elsewhere,
        _ => panic!("another outcome"),
    }
}

/// Reserves a unit that is free, once the store has heard of it.
async fn reserve_soon(store: &PostgresStore, limit: u64) -> Box<dyn Reservation> {
    let since = Instant::now();
    loop {
        match reserve(store, limit).await {
            Outcome::Admitted(reservation) => return reservation,
            _ => assert!(since.elapsed() < Duration::from_secs(5), "a unit is free"),
        }
        tokio::task::yield_now().await;
    }
}

/// Reserves units until none is left. Returns how many were admitted.
async fn use_up(store: &PostgresStore, limit: u64) -> u64 {
    let (mut admitted, since) = (0, Instant::now());
    loop {
        match reserve(store, limit).await {
            Outcome::Admitted(_) => admitted += 1,
            Outcome::UsedUp => return admitted,
            Outcome::Elsewhere => assert!(since.elapsed() < DEADLINE, "units stay elsewhere"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "callers of several nodes at once")]
async fn use_up_at_once(stores: &[PostgresStore], callers: usize, limit: u64) -> (u64, u64) {
    let (mut tasks, mut admitted, mut elsewhere) = (Vec::new(), 0, 0);
    for number in 0..callers {
        let store = stores[number % stores.len()].clone();
        tasks.push(tokio::spawn(async move {
            let (mut admitted, mut elsewhere) = (0, 0);
            loop {
                match reserve(&store, limit).await {
                    Outcome::Admitted(_) => admitted += 1,
                    Outcome::UsedUp => return (admitted, elsewhere),
                    Outcome::Elsewhere => elsewhere += 1,
                }
            }
        }));
    }
    for task in tasks {
        let (some, not) = task.await.unwrap();
        admitted += some;
        elsewhere += not;
    }
    (admitted, elsewhere)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn nodes_admit_exactly_the_limit_and_reject_nobody_while_units_are_left() {
    for limit in [1, 7, 50, 1000] {
        let nodes = Nodes::start(4).await;
        assert_eq!(use_up_at_once(&nodes.stores, 64, limit).await, (limit, 0), "limit {limit}");
        nodes.check(limit);
        assert_eq!(nodes.counted().await.0, limit);
        nodes.close().await;
    }
}

/// Requests that count on the day and the month of a key, and on the day of all keys.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
#[expect(clippy::disallowed_methods, reason = "callers of several nodes at once")]
async fn requests_under_several_quotas_are_admitted_exactly_over_all_nodes() {
    let everybody = Quota::new("everybody", Period::Day).unwrap();
    for [daily, monthly, all] in [[40, 25, 60], [17, 40, 90], [50, 50, 33]] {
        let nodes = Nodes::start(3).await;
        let demands = move || {
            let pool = Demand::new(KeyId::from("pool"), Limit::Units(all), SystemTime::now());
            [demand(daily), demand(monthly).quota(Quota::MONTHLY), pool.quota(everybody)]
        };
        let mut tasks = Vec::new();
        for number in 0..24 {
            let store = nodes.stores[number % nodes.stores.len()].clone();
            tasks.push(tokio::spawn(async move {
                let (mut admitted, since) = (0, Instant::now());
                loop {
                    match store.reserve_all(&demands()).await {
                        Ok(ReserveAllOutcome::Admitted(units)) => {
                            for (mut units, _) in units {
                                poll_fn(|cx| units.poll_committed(cx)).await.unwrap();
                            }
                            admitted += 1;
                        }
                        Ok(ReserveAllOutcome::Exhausted(_)) => return admitted,
                        // Other nodes hold the last units of one of them.
                        _ => assert!(since.elapsed() < DEADLINE, "units stay elsewhere"),
                    }
                }
            }));
        }
        let mut admitted = 0;
        for task in tasks {
            admitted += task.await.unwrap();
        }
        let expected = daily.min(monthly).min(all);
        assert_eq!(admitted, expected, "{daily} a day, {monthly} a month, {all} of all");
        assert_eq!(nodes.counted().await.0, 3 * expected, "each is on record on each quota");
        nodes.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn units_that_a_node_does_not_use_are_given_to_the_one_that_needs_them() {
    let nodes = Nodes::start(3).await;
    for store in &nodes.stores {
        assert!(matches!(reserve(store, 300).await, Outcome::Admitted(_)));
    }
    // The others hold a part of what is left.
    assert_eq!(use_up(&nodes.stores[0], 300).await, 297);
    assert_eq!(use_up(&nodes.stores[1], 300).await + use_up(&nodes.stores[2], 300).await, 0);
    nodes.check(300);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_refunded_unit_can_be_used_on_every_node_once() {
    let nodes = Nodes::start(2).await;
    let [first, second] = &nodes.stores[..] else { unreachable!() };
    for _ in 0..5 {
        let mut reservation = reserve_soon(first, 1).await;
        assert_eq!(use_up(second, 1).await, 0);
        assert!(reservation.refund(Refund::Always).await.unwrap());
        let mut other = reserve_soon(second, 1).await;
        assert_eq!(use_up(first, 1).await, 0);
        assert!(other.refund(Refund::Always).await.unwrap());
        assert!(!other.refund(Refund::Always).await.unwrap());
    }
    nodes.check(1);
    assert_eq!(nodes.counted().await.0, 0);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn provoked_refunds_of_all_nodes_are_at_most_the_limit() {
    let nodes = Nodes::start(2).await;
    let mut admitted = 0;
    let mut rounds = 0;
    while rounds < 20 {
        rounds += 1;
        for store in &nodes.stores {
            while let Outcome::Admitted(mut reservation) = reserve(store, 5).await {
                admitted += 1;
                rounds = 0;
                let _ = reservation.refund(Refund::UpToLimit).await.unwrap();
            }
            store.flush().await.unwrap();
        }
    }
    assert_eq!(admitted, 10);
    nodes.check(5);
    assert_eq!(nodes.counted().await.0, 5);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_lowered_limit_counts_what_every_node_has_used() {
    for _ in 0..5 {
        let nodes = Nodes::start(3).await;
        let mut admitted = 0;
        for store in &nodes.stores {
            for _ in 0..5 {
                admitted += u64::from(matches!(reserve(store, 200).await, Outcome::Admitted(_)));
            }
        }
        assert_eq!(admitted, 15);
        // All hold leases of the limit of 200.
        let (more, _) = use_up_at_once(&nodes.stores, 12, 50).await;
        assert_eq!(admitted + more, 50);
        nodes.check(50);
        nodes.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn every_node_reports_what_all_have_used() {
    const LIMIT: u64 = 20;
    let nodes = Nodes::start(3).await;
    let [first, others @ ..] = &nodes.stores[..] else { panic!("there are three") };
    for store in others {
        assert_eq!(store.status(&demand(LIMIT)).await.unwrap().used, 0);
    }
    for used in 1..=LIMIT {
        assert!(matches!(reserve(first, LIMIT).await, Outcome::Admitted(_)));
        assert_eq!(first.status(&demand(LIMIT)).await.unwrap().used, used);
        first.flush().await.unwrap();
        for store in &nodes.stores {
            assert_eq!(store.status(&demand(LIMIT)).await.unwrap().used, used);
        }
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_raised_limit_is_granted_on_every_node() {
    let nodes = Nodes::start(2).await;
    assert_eq!(use_up_at_once(&nodes.stores, 8, 10).await.0, 10);
    assert_eq!(use_up_at_once(&nodes.stores, 8, 25).await.0, 15);
    nodes.check(25);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn what_is_granted_follows_a_limit_in_the_table_that_a_node_has_not_heard_of() {
    let nodes = Nodes::start(2).await;
    let record = KeyRecord::new(KeyId::from("alice"), Limit::Units(100));
    nodes.stores[0].insert(&SecretKey::parse(ALICE).unwrap(), record).await.unwrap();
    assert!(matches!(reserve(&nodes.stores[0], 100).await, Outcome::Admitted(_)));
    psql(&nodes.url, "UPDATE api_keys SET daily_limit = 3");
    let on_both = use_up(&nodes.stores[1], 100).await + use_up(&nodes.stores[0], 3).await;
    assert_eq!(on_both, 2);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_reset_gives_the_whole_limit_to_the_requests_of_all_nodes() {
    let nodes = Nodes::start(3).await;
    let record = KeyRecord::new(KeyId::from("alice"), Limit::Units(30));
    let key = NewKey::new(SecretKey::parse(ALICE).unwrap(), record).unwrap();
    nodes.stores[0].create(vec![key], Actor::default()).await.unwrap();
    for round in 1..=5 {
        for store in &nodes.stores {
            reserve_soon(store, 30).await;
        }
        // A unit that its node does not report in time counts after the reset.
        assert_eq!(nodes.counted().await.0, 3);
        let edit = KeyEdit::new(KeyRef::new("alice"), KeyChange::ResetUsage, Actor::default());
        nodes.stores[1].change(edit).await.unwrap();
        let (admitted, _) = use_up_at_once(&nodes.stores, 24, 30).await;
        assert_eq!(admitted, 30, "round {round}");
        nodes.check(30);
        assert_eq!(nodes.counted().await.0, 30);
        let edit = KeyEdit::new(KeyRef::new("alice"), KeyChange::ResetUsage, Actor::default());
        nodes.stores[2].change(edit).await.unwrap();
    }
    assert_eq!(nodes.counted().await, (0, 5 * 33));
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_changed_key_is_honoured_by_every_node() {
    let nodes = Nodes::start(2).await;
    let secret = SecretKey::parse(ALICE).unwrap();
    let record = KeyRecord::new(KeyId::from("alice"), Limit::Units(30));
    nodes.stores[0].insert(&secret, record).await.unwrap();
    let limit_on =
        async |store: &PostgresStore| store.find(&secret).await.unwrap().unwrap().daily_limit;
    for limit in [5, 40] {
        let patch = KeyPatch::default().daily_limit(Limit::Units(limit)).unwrap();
        let edit = KeyEdit::new(KeyRef::new("alice"), KeyChange::Update(patch), Actor::default());
        nodes.stores[0].change(edit).await.unwrap();
        let since = Instant::now();
        while limit_on(&nodes.stores[1]).await != Limit::Units(limit) {
            assert!(since.elapsed() < Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn amounts_are_taken_whole_from_what_all_nodes_hold() {
    let nodes = Nodes::start(3).await;
    for store in &nodes.stores {
        assert!(matches!(reserve(store, 100).await, Outcome::Admitted(_)));
    }
    let large = |amount| demand(100).amount(amount);
    let mut outcomes = Vec::new();
    for (store, amount) in nodes.stores.iter().zip([60, 38, 37]) {
        outcomes.push(loop {
            match store.reserve(&large(amount)).await.unwrap() {
                ReserveOutcome::Admitted { reservation, .. } => break Some(reservation),
                ReserveOutcome::Exhausted(_) => break None,
                _ => {}
            }
        });
    }
    let admitted: Vec<_> = outcomes.iter().map(Option::is_some).collect();
    assert_eq!(admitted, [true, false, true]);
    assert_eq!(use_up(&nodes.stores[1], 100).await, 0);
    nodes.check(100);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn nodes_that_hear_nothing_of_each_other_admit_exactly_the_limit() {
    let url = Postgres::shared().create_database();
    let proxy = deaf_proxy(&url).await;
    let nodes = Nodes::start_through(url, &proxy, 3).await;
    for store in &nodes.stores {
        assert!(matches!(reserve(store, 300).await, Outcome::Admitted(_)));
    }
    assert_eq!(use_up(&nodes.stores[0], 300).await, 297);
    let mut reservation = {
        psql(&nodes.url, "UPDATE counters SET recalled_at = NULL");
        reserve_soon(&nodes.stores[1], 301).await
    };
    assert_eq!(use_up(&nodes.stores[2], 301).await, 0);
    assert!(reservation.refund(Refund::Always).await.unwrap());
    reserve_soon(&nodes.stores[2], 301).await;
    nodes.check(301);
    nodes.close().await;
}

/// A statement that gives back what a node has not spent of its first grant, as it may arrive after later ones.
const LATE_RETURN: &str = "SELECT (extend_lease(l.key_id, l.quota, l.day, l.node, n.session,
        '-infinity', 'infinity', NULL, 1, 1, 1, 0, 512, 9, NULL)).state
    FROM leases l JOIN nodes n ON n.number = l.node";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_late_return_takes_no_units_that_were_granted_in_place_of_others() {
    let nodes = Nodes::start(2).await;
    let [first, second] = &nodes.stores[..] else { unreachable!() };
    let granted = || psql(&nodes.url, "SELECT granted FROM leases");
    assert!(matches!(reserve(first, 10).await, Outcome::Admitted(_)));
    assert_eq!(granted(), "5");
    // Gives back four units within the limit of 10, and is granted as many within 9.
    assert!(matches!(reserve(first, 9).await, Outcome::Admitted(_)));
    assert_eq!(granted(), "5");
    assert_eq!(psql(&nodes.url, LATE_RETURN), "stale");
    assert_eq!(use_up(second, 9).await + use_up(first, 9).await, 7);
    nodes.check(9);
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn units_are_given_back_for_good_before_the_server_crashes() {
    // Without a flush of its own, a commit is lost.
    let server = Postgres::start(&["fsync=off", "wal_writer_delay=10s"]);
    let url = server.create_database();
    let nodes = Nodes::start_through(url.clone(), &url, 1).await;
    let [store] = &nodes.stores[..] else { unreachable!() };
    assert!(matches!(reserve(store, 10).await, Outcome::Admitted(_)));
    store.flush().await.unwrap();
    let unused = || psql(&url, "SELECT granted - spent FROM leases");
    assert_eq!(unused(), "9");
    psql(&url, "SELECT notify_leases('recall', node::text, quota, day, key_id) FROM leases");
    let since = Instant::now();
    while unused() != "0" {
        assert!(since.elapsed() < Duration::from_secs(5), "the units are given back");
    }
    server.stop("immediate");
    server.resume();
    assert_eq!(unused(), "0");
    let since = Instant::now();
    while let Err(error) = store.reserve(&demand(10)).await {
        assert!(since.elapsed() < Duration::from_secs(5), "units are granted again: {error:?}");
        tokio::task::yield_now().await;
    }
    nodes.check(10);
    assert_eq!(nodes.counted().await.0, 2);
    nodes.close().await;
}
