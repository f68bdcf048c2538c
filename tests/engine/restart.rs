//! After a restart in a quiet moment every figure is exact, however the gateway ended.

use crate::common::{Gateway, GatewayCommand, Random, Upstream, Wire, chat_json, json_response};
use serde_json::json;
use tokio::task::JoinSet;

const ROUNDS: usize = 5;
const CLIENTS: usize = 8;
const LIMITS: [u64; 4] = [0, 1, 30, 2_000];

#[derive(Clone, Copy)]
enum End {
    Kill9,
    Terminate,
}

/// Sends `each` requests from each client; returns how many were served.
async fn load(gateway: &Gateway, key: &str, each: u64) -> u64 {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (gateway, key) = (gateway.address(), key.to_owned());
        clients.spawn(async move {
            let mut wire = Wire::connect(gateway).await.unwrap();
            let mut served = 0;
            for _ in 0..each {
                match wire.post(&key, "{}").await.unwrap().0 {
                    200 => served += 1,
                    429 => {}
                    status => panic!("{status}"),
                }
            }
            served
        });
    }
    clients.join_all().await.iter().sum()
}

async fn every_figure_is_exact_after(end: End, durability: &str) {
    let mut random = Random::seeded(durability);
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let command = GatewayCommand::before(upstream.base_url()).env("DURABILITY", durability);
    let mut gateway = command.start();
    let mut keys = Vec::new();
    for limit in LIMITS {
        keys.push((gateway.create_key(json!({"daily_limit": limit})).await, limit, 0));
    }
    for round in 0..ROUNDS {
        for (key, _, served) in &mut keys {
            *served += load(&gateway, key, random.below(12)).await;
        }
        if let End::Terminate = end {
            gateway.terminate();
            assert!(gateway.wait().success());
        }
        gateway.restart();
        for (key, limit, served) in &keys {
            let usage = gateway.usage(key).await;
            assert_eq!(usage["used"], *served, "round {round}, limit {limit}: {usage}");
            if let End::Terminate = end {
                assert_eq!(usage["requests"]["succeeded"], *served, "{usage}");
                assert_eq!(usage["tokens"]["total"], 5 * served, "{usage}");
            }
        }
    }
    for (key, limit, served) in keys.into_iter().filter(|(_, limit, _)| *limit > 0) {
        let rest = load(&gateway, &key, (limit - served).div_ceil(CLIENTS as u64) + 1).await;
        assert_eq!(served + rest, limit, "every unit can be used by someone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_is_exact_after_kill_9() {
    every_figure_is_exact_after(End::Kill9, "process").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_is_exact_after_kill_9_with_power() {
    every_figure_is_exact_after(End::Kill9, "power").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_is_exact_after_a_clean_end() {
    every_figure_is_exact_after(End::Terminate, "process").await;
}
