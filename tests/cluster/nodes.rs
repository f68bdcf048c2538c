//! Gateways with one database, and clients that know what became of each request.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::upstream::{CountingUpstream, body};
use crate::common::{Client, Gateway, GatewayCommand, free_port};

/// Time that a client lets pass before it sends again what was not served.
pub(crate) const PACE: Duration = Duration::from_millis(20);

/// A gateway with a journal of its own, at an address that it keeps over restarts.
pub(crate) struct Node {
    command: GatewayCommand,
    address: SocketAddr,
    gateway: Gateway,
}

/// What became of a request, as its client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 200: it has cost a unit.
    Served,
    /// 429 that says that the day's units are used up.
    UsedUp,
    /// 429 that says that another attempt may be served.
    TryAgain,
    /// 503: it cannot be counted now.
    Unavailable,
    /// No response: it may have cost a unit or not.
    Lost,
}

/// Settings of a gateway with this database and this upstream.
pub(crate) fn settings(url: &str, upstream: &CountingUpstream) -> GatewayCommand {
    GatewayCommand::before(upstream.base_url())
        .env("DATABASE_URL", url)
        .env("JOURNAL_ACCEPT_VOLATILE", "true")
        .env("WORKER_THREADS", "2")
}

/// Starts this number of gateways, and waits until all of them serve requests.
pub(crate) async fn start(count: usize, url: &str, upstream: &CountingUpstream) -> Vec<Node> {
    let nodes: Vec<_> = (0..count).map(|_| Node::start(settings(url, upstream))).collect();
    for node in &nodes {
        node.is_ready().await;
    }
    nodes
}

impl Node {
    /// Starts a gateway with these settings.
    pub(crate) fn start(command: GatewayCommand) -> Self {
        let port = free_port();
        let command = command.env("PORT", port.to_string());
        let gateway = tokio::task::block_in_place(|| command.start());
        Self { command, address: ([127, 0, 0, 1], port).into(), gateway }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Waits until it serves requests.
    pub(crate) async fn is_ready(&self) {
        let url = self.gateway.url("/readyz");
        let mut response = None;
        let is_ready = async || {
            let current = Client::http1().get(&url).await;
            response.insert(current).status == 200
        };
        let is_ready = holds_in_time(is_ready).await;
        assert!(is_ready, "{response:?}\n{}", self.gateway.printed());
    }

    /// Ends it as a loss of its process does, and starts it again.
    pub(crate) fn kill_and_start(&mut self) {
        tokio::task::block_in_place(|| self.gateway.restart());
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(&mut self) {
        self.gateway.terminate();
        let status = tokio::task::block_in_place(|| self.gateway.wait());
        assert!(status.success(), "{}", self.gateway.printed());
    }

    /// Ends it as a service manager does, and starts it again.
    pub(crate) fn stop_and_start(&mut self) {
        self.stop();
        self.gateway = tokio::task::block_in_place(|| self.command.start());
    }
}

/// Creates a key, which is named in the calls of its requests by its label.
pub(crate) async fn create_key(node: &Node, label: &str, limit: u64) -> String {
    node.gateway().create_key(json!({"label": label, "daily_limit": limit})).await
}

/// Waits until each node reports this number of used units.
pub(crate) async fn usage_agrees(nodes: &[Node], key: &str, used: u64) {
    for node in nodes {
        let mut last = Value::Null;
        let reports = async || {
            last = node.gateway().usage(key).await["used"].take();
            last == used
        };
        let agrees = holds_in_time(reports).await;
        assert!(agrees, "{used} used, but {last} at {}", node.address());
    }
}

/// Returns whether a condition holds within some seconds.
async fn holds_in_time(mut condition: impl AsyncFnMut() -> bool) -> bool {
    const DEADLINE: Duration = Duration::from_secs(20);
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if condition().await {
            return true;
        }
        tokio::time::sleep(PACE).await;
    }
    false
}

/// Sends a request, whose call upstream has this name.
pub(crate) async fn send(client: &Client, node: SocketAddr, key: &str, name: &str) -> Outcome {
    send_body(client, node, key, body(name, false)).await
}

/// Sends a request whose call upstream is held.
pub(crate) async fn send_held(client: &Client, node: SocketAddr, key: &str, name: &str) -> Outcome {
    send_body(client, node, key, body(name, true)).await
}

async fn send_body(client: &Client, node: SocketAddr, key: &str, body: bytes::Bytes) -> Outcome {
    let url = format!("http://{node}/v1/chat/completions");
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let Ok(response) = client.open(Method::POST, &url, &headers, body).await else {
        return Outcome::Lost;
    };
    let (head, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        return Outcome::Lost;
    };
    let body = body.to_bytes();
    let code = || {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    };
    match (head.status.as_u16(), code().as_str()) {
        (200, _) => Outcome::Served,
        (429, "insufficient_quota") => Outcome::UsedUp,
        (429, "rate_limit_exceeded") => {
            assert_eq!(head.headers["retry-after"], "1");
            Outcome::TryAgain
        }
        (503, "store_unavailable") => Outcome::Unavailable,
        _ => panic!("{head:?} {body:?}"),
    }
}
