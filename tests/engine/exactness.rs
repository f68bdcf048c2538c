//! Exactly the limit reaches the upstream, however many ask at once.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::common::{
    Client, Gateway, GatewayCommand, Upstream, Wire, Wire2, chat_json, json_response,
};
use serde_json::json;

/// Requests for each limit, and over how many connections they come.
const MANY: usize = 10_000;
const CONNECTIONS: usize = 256;
const LIMITS: [usize; 4] = [1, 2, 7, 1_000];

/// The limit of those that are all under way at once, and how many more ask meanwhile.
const HELD: usize = 50;
const MORE: usize = 150;

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
    let response = wire.post(&key, "{}").await.unwrap();
    (wire, checked(response))
}

async fn ask_over_http2(mut wire: Wire2, key: Arc<str>) -> (Wire2, u16) {
    let response = wire.post(&key, "{}").await;
    (wire, checked(response))
}

/// Sends [`MANY`] requests over these connections, on each one after another.
async fn crowd<C, F>(connections: Vec<C>, ask: impl Fn(C) -> F + Clone + Send + 'static) -> Vec<u16>
where
    C: Send + 'static,
    F: Future<Output = (C, u16)> + Send,
{
    let taken = Arc::new(AtomicUsize::new(0));
    let mut crowd = tokio::task::JoinSet::new();
    for mut connection in connections {
        let (taken, ask) = (taken.clone(), ask.clone());
        crowd.spawn(async move {
            let mut statuses = Vec::new();
            while taken.fetch_add(1, Ordering::Relaxed) < MANY {
                let status;
                (connection, status) = ask(connection).await;
                statuses.push(status);
            }
            statuses
        });
    }
    crowd.join_all().await.concat()
}

async fn crowd_over_http1(gateway: &Gateway, key: Arc<str>) -> Vec<u16> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Wire::connect(gateway.address()).await.unwrap());
    }
    crowd(connections, move |wire| ask_over_http1(wire, key.clone())).await
}

async fn crowd_over_http2(gateway: &Gateway, key: Arc<str>) -> Vec<u16> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Wire2::connect(gateway.address()).await);
    }
    crowd(connections, move |wire| ask_over_http2(wire, key.clone())).await
}

async fn of_10_000_requests_exactly_the_limit_is_served(
    crowd: impl AsyncFn(&Gateway, Arc<str>) -> Vec<u16>,
) {
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let mut reached = 0;
    for limit in LIMITS {
        let key: Arc<str> = gateway.create_key(json!({"daily_limit": limit})).await.into();
        let statuses = crowd(&gateway, key.clone()).await;
        let count = |status: u16| statuses.iter().filter(|seen| **seen == status).count();
        let served = (count(200), count(429));
        assert_eq!(served, (limit, MANY - limit), "limit {limit}: {}", gateway.printed());
        assert_eq!(upstream.count() - reached, limit, "limit {limit}: requests at the upstream");
        reached = upstream.count();
        assert_eq!(gateway.used(&key).await, limit as u64);
        assert_eq!(gateway.usage(&key).await["remaining"], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_limit_of_10_000_requests_is_served_over_http1() {
    of_10_000_requests_exactly_the_limit_is_served(crowd_over_http1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_limit_of_10_000_requests_is_served_over_http2() {
    of_10_000_requests_exactly_the_limit_is_served(crowd_over_http2).await;
}

/// No response is there yet when the limit is reached.
async fn exactly_the_limit_is_under_way(client: Client) {
    let upstream = Upstream::holding(|_| json_response(chat_json().to_string())).await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": HELD})).await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..HELD + MORE {
        let (client, key) = (client.clone(), key.clone());
        let url = gateway.url("/v1/chat/completions");
        requests.spawn(async move { client.post_as(&key, &url, &json!({})).await.status });
    }
    upstream.reached_by(HELD).await;
    for _ in 0..MORE {
        assert_eq!(requests.join_next().await.unwrap().unwrap(), 429);
    }
    assert_eq!(gateway.used(&key).await, HELD as u64, "both reports count what is under way");
    upstream.release(HELD);
    assert!(requests.join_all().await.iter().all(|status| *status == 200));
    assert_eq!(upstream.count(), HELD);
    assert_eq!(gateway.used(&key).await, HELD as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_limit_is_in_flight_over_http1() {
    exactly_the_limit_is_under_way(Client::http1()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_limit_is_in_flight_over_one_http2_connection() {
    exactly_the_limit_is_under_way(Client::http2()).await;
}
