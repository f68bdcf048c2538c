//! The limit is exact, and an answered request is never lost.

mod common;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::{
    Client, Gateway, GatewayCommand, Upstream, Wire, Wire2, chat_json, json_answer, noon_zone,
};
use http::Method;
use serde_json::{Value, json};

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

/// Requests for each limit, and how many of them are under way at any time.
const MANY: usize = 10_000;
const AT_ONCE: usize = 256;
const LIMITS: [usize; 4] = [1, 2, 7, 1_000];

/// Sends [`MANY`] requests by [`AT_ONCE`] clients, each of which sends and checks one at a time.
async fn crowd<C, F>(clients: Vec<C>, ask: impl Fn(C) -> F + Clone + Send + 'static) -> Vec<u16>
where
    C: Send + 'static,
    F: Future<Output = (C, u16)> + Send,
{
    assert_eq!(clients.len(), AT_ONCE);
    let taken = Arc::new(AtomicUsize::new(0));
    let mut crowd = tokio::task::JoinSet::new();
    for mut client in clients {
        let (taken, ask) = (taken.clone(), ask.clone());
        crowd.spawn(async move {
            let mut statuses = Vec::new();
            while taken.fetch_add(1, Ordering::Relaxed) < MANY {
                let status;
                (client, status) = ask(client).await;
                statuses.push(status);
            }
            statuses
        });
    }
    crowd.join_all().await.concat()
}

fn checked((status, body): (u16, Vec<u8>)) -> u16 {
    let text = String::from_utf8(body).unwrap();
    match status {
        200 => {}
        429 => assert!(text.contains(r#""code":"insufficient_quota""#), "{text}"),
        _ => panic!("{status}: {text}"),
    }
    status
}

async fn ask_over_http1(mut wire: Wire, key: Arc<str>) -> (Wire, u16) {
    let answer = wire.post(&key, "{}").await.unwrap();
    (wire, checked(answer))
}

async fn ask_over_http2(mut wire: Wire2, key: Arc<str>) -> (Wire2, u16) {
    let answer = wire.post(&key, "{}").await;
    (wire, checked(answer))
}

async fn of_10_000_requests_exactly_the_limit_is_served(http2: bool) {
    let upstream = Upstream::start(|_| json_answer(chat_json().to_string())).await;
    let gateway = GatewayCommand::new()
        .env("UPSTREAM_BASE_URL", upstream.base_url())
        .env("QUOTA_TIMEZONE", noon_zone())
        .env("RUST_LOG", "warn")
        .start();
    let mut reached = 0;
    for limit in LIMITS {
        let key: Arc<str> = gateway.create_key(json!({"daily_limit": limit})).await.into();
        // The key's first look-up is not what is shown here.
        let usage = Client::http1().get_as(&key, &gateway.url("/usage")).await.json();
        assert_eq!((&usage["used"], &usage["remaining"]), (&json!(0), &json!(limit)));
        let theirs = key.clone();
        let statuses = if http2 {
            let mut clients = Vec::new();
            for _ in 0..8 {
                clients.extend(vec![Wire2::connect(gateway.address()).await; AT_ONCE / 8]);
            }
            crowd(clients, move |wire| ask_over_http2(wire, theirs.clone())).await
        } else {
            let mut clients = Vec::new();
            for _ in 0..AT_ONCE {
                clients.push(Wire::connect(gateway.address()).await.unwrap());
            }
            crowd(clients, move |wire| ask_over_http1(wire, theirs.clone())).await
        };
        let count = |status: u16| statuses.iter().filter(|seen| **seen == status).count();
        assert_eq!((count(200), count(429)), (limit, MANY - limit), "limit {limit}");
        assert_eq!(upstream.count() - reached, limit, "limit {limit}: requests at the upstream");
        reached = upstream.count();
        let usage = Client::http1().get_as(&key, &gateway.url("/usage")).await.json();
        assert_eq!((&usage["used"], &usage["remaining"]), (&json!(limit), &json!(0)));
        let record = gateway.admin(Method::GET, &format!("/admin/keys/{key}"), &Value::Null).await;
        assert_eq!((&record["used_today"], &record["remaining"]), (&json!(limit), &json!(0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_10_000_requests_from_256_connections_exactly_the_limit_is_served_over_http1() {
    of_10_000_requests_exactly_the_limit_is_served(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_10_000_requests_on_256_streams_exactly_the_limit_is_served_over_http2() {
    of_10_000_requests_exactly_the_limit_is_served(true).await;
}
