//! Gateways with one database, and clients that know what became of each request.

use std::{
    net::SocketAddr,
    process::ExitStatus,
    time::{Duration, Instant},
};

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{
    journal::JournalFiles,
    upstream::{CountingUpstream, body},
};
use crate::common::{Client, Gateway, GatewayCommand, free_port};

/// Time that a client lets pass before it sends again what was not served.
pub(crate) const PACE: Duration = Duration::from_millis(20);

/// A gateway with a journal of its own, at an address that it keeps over restarts.
pub(crate) struct Node {
    command: GatewayCommand,
    address: SocketAddr,
    gateway: Gateway,
    journal: JournalFiles,
    /// Number of the copies that were made of its journal.
    copies: u32,
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
        let journal = JournalFiles::new(command.dir().join("journal"));
        let command = command.env("PORT", port.to_string()).env("JOURNAL_PATH", journal.path());
        let gateway = tokio::task::block_in_place(|| command.start());
        Self { command, address: ([127, 0, 0, 1], port).into(), gateway, journal, copies: 0 }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    pub(crate) fn journal(&self) -> &JournalFiles {
        &self.journal
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

    /// Ends it as a loss of its process does.
    pub(crate) fn kill(&mut self) {
        tokio::task::block_in_place(|| self.gateway.kill9());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.gateway.has_ended()
    }

    /// Ends it as a loss of its process does, and starts it again.
    pub(crate) fn kill_and_start(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(&mut self) {
        let status = self.terminate();
        assert!(status.success(), "{}", self.gateway.printed());
    }

    /// Ends it as a service manager does, also where it cannot make its last checkpoint.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.gateway.terminate();
        tokio::task::block_in_place(|| self.gateway.wait())
    }

    /// Ends it as a service manager does, and starts it again.
    pub(crate) fn stop_and_start(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Starts it after its end.
    pub(crate) fn start_again(&mut self) {
        self.gateway = tokio::task::block_in_place(|| self.command.start());
    }

    /// Starts it after its end. If it ends again, returns what it has printed.
    pub(crate) async fn try_start_again(&mut self) -> Result<(), String> {
        self.gateway = tokio::task::block_in_place(|| self.command.try_start())?;
        opened(&mut self.gateway).await
    }

    /// Copies its journal.
    pub(crate) fn copy_journal(&mut self) -> JournalFiles {
        self.copies += 1;
        self.journal.copy_to(self.command.dir().join(format!("copy-{}", self.copies)))
    }

    /// Returns the settings of a gateway at another address, which counts with a copy of the journal.
    pub(crate) fn settings_of_copy(&self, copy: &JournalFiles) -> GatewayCommand {
        self.command.clone().env("PORT", "0").env("JOURNAL_PATH", copy.path())
    }

    /// Starts it with a copy of its journal after its end, and keeps that one if it is accepted. Otherwise returns what it
    /// has printed.
    pub(crate) async fn start_with(&mut self, copy: JournalFiles) -> Result<(), String> {
        let command = self.command.clone().env("JOURNAL_PATH", copy.path());
        let mut gateway = tokio::task::block_in_place(|| command.try_start())?;
        opened(&mut gateway).await?;
        (self.command, self.gateway, self.journal) = (command, gateway, copy);
        Ok(())
    }
}

/// Checks that a gateway with a copy of a journal does not count while another one counts with the original.
pub(crate) async fn is_rejected(copy: &Gateway) {
    let rejected = "another process counts with this journal, or with a copy of it";
    let is_rejected = holds_in_time(async || copy.printed().contains(rejected)).await;
    assert!(is_rejected, "{}", copy.printed());
    assert_eq!(Client::http1().get(&copy.url("/readyz")).await.status, 503);
}

/// Waits until it has opened its database, or has ended: then returns what it has printed.
async fn opened(gateway: &mut Gateway) -> Result<(), String> {
    let url = gateway.url("/readyz");
    let mut ended = false;
    let is_decided = async || {
        ended = gateway.has_ended();
        let response = Client::http1().open(Method::GET, &url, &[], "").await;
        ended || response.is_ok_and(|response| response.status() == 200)
    };
    let is_decided = holds_in_time(is_decided).await;
    assert!(is_decided, "it neither opens its database nor ends:\n{}", gateway.printed());
    if ended { Err(gateway.printed()) } else { Ok(()) }
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
