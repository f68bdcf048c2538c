//! The limits of a key besides its requests per day: each is exact, and a request that one of them rejects counts on
//! none.

use std::time::Duration;

use http::Method;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::common::{
    Client, Gateway, GatewayCommand, Upstream, chat_json, eventually, json_response,
};

async fn upstream() -> Upstream {
    Upstream::start(|_| json_response(chat_json().to_string())).await
}

/// Sends a request. Returns its status and the policy that has rejected it, if one has.
async fn send(gateway: &Gateway, key: &str) -> (u16, String) {
    let url = gateway.url("/v1/chat/completions");
    let response = Client::http1().post_as(key, &url, &json!({})).await;
    let policy = match response.status.is_success() {
        true => String::new(),
        false => response.json()["error"]["policy"].as_str().unwrap_or_default().to_owned(),
    };
    (response.status.as_u16(), policy)
}

async fn send_all(gateway: &Gateway, key: &str, requests: usize) -> Vec<(u16, String)> {
    let mut sent = Vec::new();
    for _ in 0..requests {
        sent.push(send(gateway, key).await);
    }
    sent
}

/// Returns what is used of each limit that `GET /usage` shows.
async fn used(gateway: &Gateway, key: &str) -> Value {
    let usage = gateway.usage(key).await;
    let limits = usage["limits"].as_array().unwrap();
    limits.iter().map(|limit| (limit["policy"].as_str().unwrap(), limit["used"].clone())).collect()
}

async fn change(gateway: &Gateway, key: &str, changes: Value) {
    gateway.admin(Method::PATCH, &format!("/admin/keys/{key}"), &changes).await;
}

fn is(status: u16, policy: &str) -> impl Fn(&(u16, String)) -> bool {
    move |sent| *sent == (status, policy.to_owned())
}

#[tokio::test]
async fn the_limit_that_rejects_a_request_is_named_and_the_others_are_not_charged() {
    let upstream = upstream().await;
    let gateway = Gateway::before(&upstream.base_url());
    let limits = json!({"daily_limit": 9, "monthly_limit": 7, "minute_limit": 4});
    let key = gateway.create_key(limits).await;

    let sent = send_all(&gateway, &key, 6).await;
    assert!(
        sent[..4].iter().all(is(200, "")) && sent[4..].iter().all(is(429, "minute")),
        "{sent:?}"
    );
    let rejected =
        Client::http1().post_as(&key, &gateway.url("/v1/chat/completions"), &json!({})).await;
    assert_eq!(rejected.code(), "rate_limit_exceeded");
    let wait: u64 = rejected.header("retry-after").parse().unwrap();
    assert!((1..=15).contains(&wait), "one each 15 seconds, not {wait}");
    assert_eq!(used(&gateway, &key).await, json!({"daily": 4, "monthly": 4, "minute": null}));

    change(&gateway, &key, json!({"minute_limit": 0})).await;
    let sent = send_all(&gateway, &key, 5).await;
    assert!(
        sent[..3].iter().all(is(200, "")) && sent[3..].iter().all(is(429, "monthly")),
        "{sent:?}"
    );
    assert_eq!(used(&gateway, &key).await, json!({"daily": 7, "monthly": 7}));

    change(&gateway, &key, json!({"monthly_limit": 20})).await;
    let sent = send_all(&gateway, &key, 4).await;
    assert!(
        sent[..2].iter().all(is(200, "")) && sent[2..].iter().all(is(429, "daily")),
        "{sent:?}"
    );
    assert_eq!(used(&gateway, &key).await, json!({"daily": 9, "monthly": 9}));
}

#[tokio::test]
async fn a_request_that_another_limit_rejects_does_not_count_on_the_minute() {
    let upstream = upstream().await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({"daily_limit": 1, "minute_limit": 3})).await;
    let sent = send_all(&gateway, &key, 20).await;
    assert!(is(200, "")(&sent[0]) && sent[1..].iter().all(is(429, "daily")), "{sent:?}");
    change(&gateway, &key, json!({"daily_limit": 50})).await;
    let sent = send_all(&gateway, &key, 3).await;
    assert!(sent[..2].iter().all(is(200, "")) && is(429, "minute")(&sent[2]), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_months_limit_is_exact_among_concurrent_requests_and_after_kill_9() {
    const LIMIT: usize = 23;
    let upstream = upstream().await;
    let mut gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({"daily_limit": 40, "monthly_limit": LIMIT})).await;
    let mut served = 0;
    for round in 0..3 {
        let mut requests = JoinSet::new();
        for _ in 0..10 + round {
            let url = gateway.url("/v1/chat/completions");
            let key = key.clone();
            requests.spawn(async move { Client::http1().post_as(&key, &url, &json!({})).await });
        }
        let sent = requests.join_all().await;
        served += sent.iter().filter(|response| response.status == 200).count();
        gateway.kill9();
        gateway.restart();
        let counted = used(&gateway, &key).await;
        assert_eq!(counted, json!({"daily": served, "monthly": served}), "round {round}");
    }
    assert_eq!(served, LIMIT);
    assert!(is(429, "monthly")(&send(&gateway, &key).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_has_its_own_number_of_requests_in_flight() {
    let upstream = Upstream::holding(|_| json_response(chat_json().to_string())).await;
    let gateway = Gateway::before(&upstream.base_url());
    let mut reached = 0;
    for max in [1, 3] {
        let key = gateway.create_key(json!({"daily_limit": 50, "max_in_flight": max})).await;
        let mut held = JoinSet::new();
        for _ in 0..max {
            let url = gateway.url("/v1/chat/completions");
            let key = key.clone();
            held.spawn(async move { Client::http1().post_as(&key, &url, &json!({})).await });
        }
        reached += max as usize;
        upstream.reached_by(reached).await;
        assert!(is(429, "in_flight")(&send(&gateway, &key).await));
        assert_eq!(gateway.used(&key).await, max, "the rejected one costs nothing");
        upstream.release(max as usize);
        for response in held.join_all().await {
            assert_eq!(response.status, 200);
        }
    }
}

#[tokio::test]
async fn keys_without_limits_of_their_own_have_those_of_the_settings() {
    let upstream = upstream().await;
    let gateway = GatewayCommand::before(upstream.base_url())
        .env("MONTHLY_REQ_LIMIT", "5")
        .env("MINUTE_REQ_LIMIT", "2")
        .env("MAX_IN_FLIGHT_PER_KEY", "3")
        .start();
    let shown = |key: &Value| {
        ["monthly_limit", "minute_limit", "max_in_flight"].map(|limit| key[limit].clone())
    };
    let path = "/admin/keys";
    let issued = gateway.admin(Method::POST, path, &json!({"label": "a"})).await;
    assert_eq!(shown(&issued), [5, 2, 3].map(|limit| json!(limit)));
    let own = json!({"monthly_limit": 0, "minute_limit": 7});
    let issued = gateway.admin(Method::POST, path, &own).await;
    assert_eq!(shown(&issued), [0, 7, 3].map(|limit| json!(limit)));

    let file = Connection::open(gateway.dir().join("quota.db")).unwrap();
    file.busy_timeout(Duration::from_secs(5)).unwrap();
    let typed =
        "INSERT INTO api_keys (key, label, monthly_limit) VALUES ('trial-key-typed-1', 'x', 1)";
    file.execute(typed, ()).unwrap();
    let sent = send_all(&gateway, "trial-key-typed-1", 2).await;
    assert_eq!(sent, [(200, String::new()), (429, "monthly".to_owned())]);
    let row = gateway.admin(Method::GET, "/admin/keys/trial-key-typed-1", &Value::Null).await;
    assert_eq!(shown(&row), [1, 2, 3].map(|limit| json!(limit)));

    file.execute("UPDATE api_keys SET minute_limit = 'few' WHERE label = 'x'", ()).unwrap();
    eventually("the bad limit is found", || async {
        let url = gateway.url("/v1/chat/completions");
        let response = Client::http1().post_as("trial-key-typed-1", &url, &json!({})).await;
        response.code() == "key_misconfigured"
    })
    .await;
}
