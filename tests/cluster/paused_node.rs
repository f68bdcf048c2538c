//! A node that does not run keeps the units that it holds, and what it has admitted.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::JoinSet;

use super::{
    invariants,
    nodes::{self, Outcome, PACE},
    upstream::CountingUpstream,
};
use crate::common::{Client, Random, postgres::Postgres};

/// Time in which a request must be rejected, far above the 250 ms of a wait on a slow machine.
const REJECTED_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn nobody_gets_the_units_of_a_paused_node_and_it_goes_on_with_them() {
    let mut random = Random::seeded("paused node");
    let pauses =
        std::env::var("TOWER_QUOTA_CLUSTER_PAUSES").map_or(8, |runs| runs.parse().unwrap());
    let (url, upstream) = (Postgres::shared().create_database(), CountingUpstream::start().await);
    let nodes = nodes::start(2, &url, &upstream).await;
    let client = Client::http1();
    for pause in 0..pauses {
        let limit = [1, 2, 7, 50][random.below(4) as usize];
        let paused = &nodes[random.below(2) as usize];
        let other = nodes.iter().find(|node| node.address() != paused.address()).unwrap();
        let name = format!("{limit}-{pause}");
        let key = nodes::create_key(other, &name, limit).await;

        upstream.hold(true);
        let mut held = JoinSet::new();
        let (address, copy, call) = (paused.address(), key.clone(), name.clone());
        held.spawn(async move { nodes::send_held(&Client::http1(), address, &copy, &call).await });
        upstream.reached_by(&name, 1).await;
        paused.gateway().signal(Signal::STOP);

        let mut served = 0;
        loop {
            let sent = Instant::now();
            match nodes::send(&client, other.address(), &key, &name).await {
                Outcome::Served => served += 1,
                Outcome::TryAgain => {
                    assert!(sent.elapsed() < REJECTED_WITHIN, "{:?}", sent.elapsed());
                    break;
                }
                outcome => panic!("{name}: {outcome:?} while the paused node holds units"),
            }
            assert!(served < limit, "{name}: the paused node's unit was served");
        }

        paused.gateway().signal(Signal::CONT);
        upstream.hold(false);
        assert_eq!(held.join_next().await.unwrap().unwrap(), Outcome::Served, "{name}");
        served += 1;
        for node in [other, paused, other] {
            loop {
                match nodes::send(&client, node.address(), &key, &name).await {
                    Outcome::Served => served += 1,
                    Outcome::TryAgain => tokio::time::sleep(PACE).await,
                    Outcome::UsedUp => break,
                    outcome => panic!("{name}: {outcome:?}"),
                }
            }
        }
        assert_eq!((served, upstream.calls(&name)), (limit, limit), "{name}");
        nodes::usage_agrees(&nodes, &key, limit).await;
    }
    invariants::hold(&url);
}
