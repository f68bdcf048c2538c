//! `UPSTREAM_MAX_IN_FLIGHT`: requests of all keys wait for the upstream in turn.

use std::collections::BTreeMap;

use crate::common::{Client, GatewayCommand, Upstream, eventually, json_response};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const PLACES: usize = 8;
const MODEST: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn beside_500_requests_of_a_greedy_key_50_modest_ones_are_served_within_two_rounds() {
    let upstream = Upstream::holding(|_| json_response("{}")).await;
    let gateway = GatewayCommand::before(upstream.base_url())
        .env("UPSTREAM_MAX_IN_FLIGHT", PLACES.to_string())
        .env("UPSTREAM_WAIT_TIMEOUT", "10m")
        .start();
    let mut keys = Vec::new();
    for _ in 0..=MODEST {
        keys.push(gateway.create_key(json!({"daily_limit": 1000})).await);
    }
    let client = Client::http1();
    let mut sent = JoinSet::new();
    let mut send = |holder: usize, requests: u64| {
        for _ in 0..requests {
            let (client, key) = (client.clone(), keys[holder].clone());
            let (url, body) = (gateway.url("/v1/chat/completions"), json!({"user": holder}));
            sent.spawn(async move { client.post_as(&key, &url, &body).await.status });
        }
    };
    // They have passed the quota, and wait behind it.
    let all_wait = async |holder: usize, requests: u64| {
        eventually("requests wait", || async {
            gateway.usage(&keys[holder]).await["used"] == requests
        })
        .await;
    };
    send(0, 500);
    all_wait(0, 500).await;
    for holder in 1..=MODEST {
        send(holder, 1);
    }
    for holder in 1..=MODEST {
        all_wait(holder, 1).await;
    }
    let arrived = async |requests: usize| {
        eventually("requests at the upstream", || async { upstream.calls().len() >= requests })
            .await;
    };
    arrived(PLACES).await;
    assert_eq!(upstream.count(), PLACES);

    // One at a time, so that they arrive in the order in which they were granted.
    let two_rounds = 2 * (MODEST + 1);
    for released in 1..=two_rounds {
        upstream.release(1);
        arrived(PLACES + released).await;
        assert_eq!(upstream.count(), PLACES + released);
    }
    let mut served = BTreeMap::<u64, usize>::new();
    for call in &upstream.calls()[PLACES..] {
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        let holder = body["user"].as_u64().unwrap();
        *served.entry(holder).or_default() += 1;
        let others = served.values().max().unwrap();
        assert!(served.len() > MODEST || *others <= 2, "{holder}: {served:?}");
    }
    assert_eq!(served.len(), MODEST + 1, "{served:?}");

    upstream.release(Upstream::ALL);
    while let Some(status) = sent.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(upstream.count(), 500 + MODEST);
}
