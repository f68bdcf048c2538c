//! Eight processes under 256 connections admit exactly the limit.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Barrier, task::JoinSet};

use super::{
    invariants,
    nodes::{self, Node, Outcome, PACE},
    upstream::CountingUpstream,
};
use crate::common::{Client, Random, Spread, postgres::Postgres};

const NODES: usize = 8;
const CONNECTIONS: usize = 256;

/// What one connection has had until its key was used up.
#[derive(Default)]
struct Connection {
    /// Times at which requests were sent that were served.
    served: Vec<Instant>,
    used_up_at: Option<Instant>,
    tries_again: u64,
    slowest: Duration,
}

async fn until_used_up(node: SocketAddr, key: &str, name: &str, start: &Barrier) -> Connection {
    let client = Client::http1();
    let mut connection = Connection::default();
    start.wait().await;
    loop {
        let sent = Instant::now();
        let outcome = nodes::send(&client, node, key, name).await;
        connection.slowest = connection.slowest.max(sent.elapsed());
        match outcome {
            Outcome::Served => connection.served.push(sent),
            // On a machine that is busy, a trip may take longer than a request waits.
            Outcome::TryAgain | Outcome::Unavailable => {
                connection.tries_again += 1;
                tokio::time::sleep(PACE).await;
            }
            Outcome::UsedUp => {
                connection.used_up_at = Some(Instant::now());
                return connection;
            }
            outcome => panic!("{outcome:?}"),
        }
    }
}

async fn exactly_the_limit_is_served(
    nodes: &[Node],
    upstream: &CountingUpstream,
    (limit, spread, run): (u64, Spread, usize),
    random: &mut Random,
) {
    let name = format!("{spread:?}-{limit}-{run}");
    let key = nodes::create_key(&nodes[run % NODES], &name, limit).await;
    let start = Arc::new(Barrier::new(CONNECTIONS));
    let mut clients = JoinSet::new();
    for node in spread.nodes(CONNECTIONS, NODES, random) {
        let (node, start) = (nodes[node].address(), start.clone());
        let (key, name) = (key.clone(), name.clone());
        clients.spawn(async move { until_used_up(node, &key, &name, &start).await });
    }
    let connections = clients.join_all().await;
    let served: Vec<Instant> =
        connections.iter().flat_map(|connection| connection.served.iter().copied()).collect();
    let tries_again: u64 = connections.iter().map(|connection| connection.tries_again).sum();
    let slowest = connections.iter().map(|connection| connection.slowest).max().unwrap();
    println!("{name}: {} served, {tries_again} to try again, {slowest:?}", served.len());
    assert_eq!(served.len() as u64, limit, "{name}");
    assert_eq!(upstream.calls(&name), limit, "{name}: rejected requests do not reach the upstream");
    let used_up_at = connections.iter().filter_map(|connection| connection.used_up_at).min();
    let last = served.into_iter().max();
    assert!(last < used_up_at, "{name}: used up while a unit was free");
    nodes::usage_agrees(nodes, &key, limit).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn eight_gateways_serve_exactly_the_limit_however_connections_are_spread() {
    let mut random = Random::seeded("eight gateways");
    let runs = std::env::var("TOWER_QUOTA_CLUSTER_RUNS").map_or(1, |runs| runs.parse().unwrap());
    let server = Postgres::start(&["fsync=off", "max_connections=400"]);
    let (url, upstream) = (server.create_database(), CountingUpstream::start().await);
    let mut nodes = nodes::start(NODES, &url, &upstream).await;
    for run in 0..runs {
        for limit in [1, 7, 50, 1000] {
            for spread in [Spread::Even, Spread::Zipf, Spread::OneNode] {
                exactly_the_limit_is_served(&nodes, &upstream, (limit, spread, run), &mut random)
                    .await;
            }
        }
        invariants::hold(&url);
    }
    for node in &mut nodes {
        node.stop();
    }
    invariants::hold_at_rest(&url);
}
