//! A node that does not run keeps the units that it holds, and what it has admitted.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::task::JoinSet;

use super::{
    invariants,
    nodes::{self, Node, Outcome, PACE},
    upstream::CountingUpstream,
};
use crate::common::{Client, Random, postgres::Postgres};

/// Time in which a request must be rejected, far above the 250 ms of a wait on a slow machine.
const REJECTED_WITHIN: Duration = Duration::from_secs(2);
/// Number of keys whose units a node holds while it is stopped.
const KEYS: usize = 10;

/// A key with a request that was admitted before its node was stopped.
struct Key {
    secret: String,
    name: String,
    limit: u64,
    served: u64,
}

impl Key {
    /// Sends requests to the other node until it needs units that the stopped one holds. Returns whether it is to try again.
    async fn use_up_at(&mut self, other: &Node, client: &Client) -> bool {
        loop {
            let sent = Instant::now();
            match nodes::send(client, other.address(), &self.secret, &self.name).await {
                Outcome::Served => self.served += 1,
                Outcome::TryAgain => {
                    assert!(sent.elapsed() < REJECTED_WITHIN, "{:?}", sent.elapsed());
                    return true;
                }
                // The stopped node has nothing left, and has reported it.
                Outcome::UsedUp if self.served + 1 == self.limit => return false,
                // On a machine that is busy, a trip may take longer than a request waits.
                Outcome::Unavailable => tokio::time::sleep(PACE).await,
                outcome => panic!("{}: {outcome:?} while the paused node holds units", self.name),
            }
            assert!(self.served < self.limit, "{}: the paused node's unit was served", self.name);
        }
    }

    /// Sends requests to each of these nodes until all units are used up.
    async fn use_up(&mut self, nodes: [&Node; 3], client: &Client) {
        for node in nodes {
            loop {
                match nodes::send(client, node.address(), &self.secret, &self.name).await {
                    Outcome::Served => self.served += 1,
                    Outcome::TryAgain | Outcome::Unavailable => tokio::time::sleep(PACE).await,
                    Outcome::UsedUp => break,
                    outcome => panic!("{}: {outcome:?}", self.name),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn nobody_gets_the_units_of_a_paused_node_and_it_goes_on_with_them() {
    let mut random = Random::seeded("paused node");
    let mut pauses =
        std::env::var("TOWER_QUOTA_CLUSTER_PAUSES").map_or(KEYS, |runs| runs.parse().unwrap());
    let (url, upstream) = (Postgres::shared().create_database(), CountingUpstream::start().await);
    let nodes = nodes::start(2, &url, &upstream).await;
    let (client, mut tries_again, all) = (Client::http1(), 0, pauses);
    while pauses > 0 {
        // The server ends the connection of a node that was stopped within a transaction.
        for node in &nodes {
            node.is_ready().await;
        }
        let paused = &nodes[random.below(2) as usize];
        let other = nodes.iter().find(|node| node.address() != paused.address()).unwrap();
        let mut keys = Vec::new();
        for _ in 0..pauses.min(KEYS) {
            let (limit, name) =
                ([1, 2, 7, 50][random.below(4) as usize], format!("pause-{pauses}"));
            let secret = nodes::create_key(other, &name, limit).await;
            keys.push(Key { secret, name, limit, served: 0 });
            pauses -= 1;
        }

        upstream.hold(true);
        let mut held = JoinSet::new();
        for Key { secret, name, .. } in &keys {
            let (address, secret, call) = (paused.address(), secret.clone(), name.clone());
            held.spawn(
                async move { nodes::send_held(&Client::http1(), address, &secret, &call).await },
            );
        }
        for key in &keys {
            upstream.reached_by(&key.name, 1).await;
        }
        paused.gateway().signal(Signal::STOP);
        let at_other = join_all(keys.iter_mut().map(|key| key.use_up_at(other, &client))).await;
        tries_again += at_other.into_iter().filter(|tries_again| *tries_again).count();
        paused.gateway().signal(Signal::CONT);
        upstream.hold(false);
        for outcome in held.join_all().await {
            assert_eq!(outcome, Outcome::Served);
        }
        keys.iter_mut().for_each(|key| key.served += 1);
        join_all(keys.iter_mut().map(|key| key.use_up([other, paused, other], &client))).await;
        for Key { secret, name, limit, served } in &keys {
            assert_eq!((*served, upstream.calls(name)), (*limit, *limit), "{name}");
            nodes::usage_agrees(&nodes, secret, *limit).await;
        }
    }
    println!("{all} pauses, {tries_again} requests were to try again");
    assert!(tries_again > 0);
    invariants::hold(&url);
}
