//! Two gateways behind HAProxy are restarted one after the other, and no client notices.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::task::JoinSet;

use super::{
    balancer::Balancer,
    invariants,
    nodes::{self, Node, Outcome},
    upstream::CountingUpstream,
};
use crate::common::{Client, eventually, postgres::Postgres};

const CLIENTS: usize = 16;
/// More than the clients send meanwhile.
const LIMIT: u64 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and haproxy"]
async fn a_rolling_restart_behind_haproxy_loses_no_request_and_no_count() {
    let (url, upstream) = (Postgres::shared().create_database(), CountingUpstream::start().await);
    let command = || nodes::settings(&url, &upstream).env("SHUTDOWN_DELAY", "3s");
    let mut nodes = vec![Node::start(command()), Node::start(command())];
    for node in &nodes {
        node.is_ready().await;
    }
    let haproxy = Balancer::haproxy([nodes[0].address(), nodes[1].address()]).await;
    let mut keys = Vec::new();
    for number in 0..CLIENTS {
        let name = format!("client-{number}");
        keys.push((nodes::create_key(&nodes[0], &name, LIMIT).await, name));
    }

    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for (key, name) in keys.clone() {
        let (is_over, address) = (is_over.clone(), haproxy.address);
        clients.spawn(async move {
            let client = Client::http1();
            let mut served = 0;
            while !is_over.load(Ordering::Relaxed) {
                let outcome = nodes::send(&client, address, &key, &name).await;
                assert_eq!(outcome, Outcome::Served, "{name} after {served}");
                served += 1;
            }
            (key, name, served)
        });
    }
    for node in &mut nodes {
        node.stop_and_start();
        node.is_ready().await;
    }
    let before: u64 = keys.iter().map(|(_, name)| upstream.calls(name)).sum();
    // Both are back in the balancer's list.
    let goes_on =
        || async { keys.iter().map(|(_, name)| upstream.calls(name)).sum::<u64>() > before + 100 };
    eventually("clients are served after both restarts", goes_on).await;
    is_over.store(true, Ordering::Relaxed);
    for (key, name, served) in clients.join_all().await {
        assert_eq!(upstream.calls(&name), served, "{name}");
        nodes::usage_agrees(&nodes, &key, served).await;
    }
    for node in &mut nodes {
        node.stop();
    }
    invariants::hold_at_rest(&url);
}
