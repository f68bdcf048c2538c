//! The limit is exact, and an answered request is never lost.

mod common;

use common::{Client, Gateway, Upstream, chat_json, json_answer};
use serde_json::json;

const REQUESTS: usize = 200;
const LIMIT: usize = 50;

async fn exactly_the_limit_reaches_the_upstream(client: Client, slow: bool) {
    let answer = |_| json_answer(chat_json().to_string());
    let upstream =
        if slow { Upstream::holding(answer).await } else { Upstream::start(answer).await };
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({"daily_limit": LIMIT})).await;

    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..REQUESTS {
        let (client, key) = (client.clone(), key.clone());
        let url = gateway.url("/v1/chat/completions");
        requests.spawn(async move { client.post_as(&key, &url, &json!({})).await });
    }
    if slow {
        upstream.reached_by(LIMIT).await;
        upstream.release(REQUESTS);
    }
    let answers = requests.join_all().await;

    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(200), count(429)), (LIMIT, REQUESTS - LIMIT));
    assert_eq!(upstream.count(), LIMIT);
    let usage = client.get_as(&key, &gateway.url("/usage")).await.json();
    assert_eq!((&usage["used"], &usage["remaining"]), (&json!(LIMIT), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_with_a_fast_upstream_over_http1() {
    exactly_the_limit_reaches_the_upstream(Client::http1(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_with_a_slow_upstream_over_http1() {
    exactly_the_limit_reaches_the_upstream(Client::http1(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_with_a_fast_upstream_over_http2() {
    exactly_the_limit_reaches_the_upstream(Client::http2(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_with_a_slow_upstream_over_http2() {
    exactly_the_limit_reaches_the_upstream(Client::http2(), true).await;
}

/// Each of 256 connections sends its share of 10,000 requests, one after another.
async fn of_10_000_requests_exactly_the_limit_is_served(client: fn() -> Client) {
    const CONNECTIONS: usize = 256;
    const ALL: usize = 10_000;
    let upstream = Upstream::start(|_| json_answer(chat_json().to_string())).await;
    let gateway = Gateway::before(&upstream.base_url());
    let mut reached = 0;
    for limit in [1, 2, 7, 1000] {
        let key = gateway.create_key(json!({"daily_limit": limit})).await;
        let mut connections = tokio::task::JoinSet::new();
        for connection in 0..CONNECTIONS {
            let share = ALL / CONNECTIONS + usize::from(connection < ALL % CONNECTIONS);
            let (client, key) = (client(), key.clone());
            let url = gateway.url("/v1/chat/completions");
            connections.spawn(async move {
                let mut statuses = Vec::new();
                for _ in 0..share {
                    statuses.push(client.post_as(&key, &url, &json!({})).await.status.as_u16());
                }
                statuses
            });
        }
        let statuses: Vec<u16> = connections.join_all().await.into_iter().flatten().collect();
        let count = |status: u16| statuses.iter().filter(|other| **other == status).count();
        let served = (count(200), count(429));
        assert_eq!(served, (limit, ALL - limit), "a limit of {limit}: {}", gateway.printed());
        reached += limit;
        assert_eq!(upstream.count(), reached, "a limit of {limit}");
        let usage = client().get_as(&key, &gateway.url("/usage")).await.json();
        assert_eq!((&usage["used"], &usage["remaining"]), (&json!(limit), &json!(0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_on_256_connections_over_http1() {
    of_10_000_requests_exactly_the_limit_is_served(Client::http1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_on_256_connections_over_http2() {
    of_10_000_requests_exactly_the_limit_is_served(Client::http2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answered_requests_are_counted_after_kill_9() {
    let upstream = Upstream::start(|_| json_answer(chat_json().to_string())).await;
    let mut gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({"daily_limit": 100})).await;
    for answered in 1..=3 {
        for _ in 0..10 {
            let url = gateway.url("/v1/chat/completions");
            let answer = Client::http1().post_as(&key, &url, &json!({})).await;
            assert_eq!(answer.status, 200);
        }
        gateway.restart();
        let usage = Client::http1().get_as(&key, &gateway.url("/usage")).await.json();
        assert_eq!(usage["used"], answered * 10);
    }
}
