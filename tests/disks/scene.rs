use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{
    ADMIN_TOKEN, Client, Gateway, GatewayCommand, Upstream, chat_json, json_response,
};

/// The longest that any response may take, whatever the disk does.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(3);

/// A gateway on a disk that is going to fail, and all that was ever sent to it.
pub(crate) struct Scene {
    pub(crate) gateway: Gateway,
    pub(crate) upstream: Upstream,
    pub(crate) log: Arc<Log>,
    database: PathBuf,
    durability: &'static str,
}

/// What was sent, and what became of it.
#[derive(Default)]
pub(crate) struct Log {
    numbers: AtomicU64,
    arrived: Arc<Mutex<HashMap<u64, Instant>>>,
    sent: Mutex<Vec<Sent>>,
    keys: Mutex<Vec<Key>>,
}

/// A key that was issued: 201 was read.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) text: Arc<str>,
    pub(crate) limit: u64,
}

/// A request and its end.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) number: u64,
    pub(crate) key: Arc<str>,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The whole 200 was read.
    Completed,
    /// 503 `store_unavailable`.
    Rejected,
    /// 429 `insufficient_quota`.
    Exhausted,
    /// Anything else, which is never right.
    Wrong(String),
}

impl Scene {
    /// A gateway whose database is this file, of the default durability.
    pub(crate) async fn start(database: PathBuf) -> Self {
        Self::start_with(database, "process").await
    }

    /// A gateway whose database is this file.
    pub(crate) async fn start_with(database: PathBuf, durability: &'static str) -> Self {
        let log = Arc::new(Log::default());
        let upstream = log.upstream().await;
        let gateway = command(&upstream, &database).env("DURABILITY", durability).start();
        let scene = Self { gateway, upstream, log, database, durability };
        scene.log.issue(&scene.gateway, 1_000_000).await.expect("a key while nothing fails");
        scene
    }

    pub(crate) fn database(&self) -> &Path {
        &self.database
    }

    /// The key of the steady load.
    pub(crate) fn key(&self) -> Key {
        self.log.keys()[0].clone()
    }

    /// What is on the disk agrees with what was completed, now and after a `kill -9`.
    pub(crate) async fn check_after_kill(mut self) {
        self.check_counts().await;
        self.gateway.kill9();
        let command = command(&self.upstream, &self.database);
        self.gateway = command.env("DURABILITY", self.durability).start();
        self.check_counts().await;
        self.gateway.terminate();
        assert!(self.gateway.wait().success(), "{}", self.gateway.printed());
        let file = rusqlite::Connection::open(&self.database).unwrap();
        let outcome: String =
            file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(outcome, "ok");
    }

    /// No completed request is uncounted; what is counted beyond was admitted, but never completed;
    /// no key had more responses than its limit, and no issued key is lost.
    pub(crate) async fn check_counts(&self) {
        let (mut completed, mut reached) = (HashMap::new(), HashMap::new());
        {
            let arrived = lock(&self.log.arrived);
            for sent in &*lock(&self.log.sent) {
                let one = u64::from(sent.outcome == Outcome::Completed);
                *completed.entry(sent.key.clone()).or_insert(0) += one;
                *reached.entry(sent.key.clone()).or_insert(0) +=
                    u64::from(arrived.contains_key(&sent.number));
            }
        }
        let keys = self.log.keys();
        // Only the first and the latest 20 keys can have changed since the last comparison.
        for key in keys[..1].iter().chain(keys[1..].iter().rev().take(20)) {
            let usage = Client::http1().get_as(&key.text, &self.gateway.url("/usage")).await;
            assert_eq!(usage.status, 200, "an issued key: {usage:?}");
            let used = usage.json()["used"].as_u64().unwrap();
            let completed = completed.get(&key.text).copied().unwrap_or(0);
            let reached = reached.get(&key.text).copied().unwrap_or(0);
            let figures = format!("completed {completed}, used {used}, at the upstream {reached}");
            assert!(completed <= used, "a completed request is not counted: {figures}");
            assert!(used <= reached, "what never reached the upstream is counted: {figures}");
            assert!(completed <= key.limit, "more than the limit of {}: {figures}", key.limit);
        }
    }
}

/// The gateway before this upstream, on this file.
pub(crate) fn command(upstream: &Upstream, database: &Path) -> GatewayCommand {
    GatewayCommand::before(upstream.base_url()).env("DATABASE_URL", database.to_str().unwrap())
}

impl Log {
    /// An upstream that responds at once and writes down which requests have come.
    pub(crate) async fn upstream(&self) -> Upstream {
        let arrived = self.arrived.clone();
        Upstream::start(move |request| {
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            let first = lock(&arrived).insert(body["n"].as_u64().unwrap(), Instant::now());
            assert!(first.is_none(), "one request in never makes two out");
            json_response(chat_json().to_string())
        })
        .await
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        lock(&self.keys).clone()
    }

    /// The requests that have ended after the first `count`.
    pub(crate) fn sent_since(&self, count: usize) -> Vec<Sent> {
        lock(&self.sent)[count..].to_vec()
    }

    pub(crate) fn sent(&self) -> usize {
        lock(&self.sent).len()
    }

    /// When the request reached the upstream.
    pub(crate) fn arrival(&self, number: u64) -> Option<Instant> {
        lock(&self.arrived).get(&number).copied()
    }

    /// Uses one unit of a key.
    pub(crate) async fn request(&self, client: &Client, gateway: &str, key: &Key) -> Outcome {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (begun, url) = (Instant::now(), format!("{gateway}/v1/chat/completions"));
        let response = client.post_as(&key.text, &url, &json!({"n": number})).await;
        let outcome = match (response.status.as_u16(), response.code().as_str()) {
            (200, _) if response.json() == chat_json() => Outcome::Completed,
            (503, "store_unavailable") => Outcome::Rejected,
            (429, "insufficient_quota") => Outcome::Exhausted,
            _ => Outcome::Wrong(format!("{response:?}")),
        };
        let key = key.text.clone();
        let ended = Instant::now();
        lock(&self.sent).push(Sent { number, key, begun, ended, outcome: outcome.clone() });
        outcome
    }

    /// Issues a key; `None` if the store is not available.
    pub(crate) async fn issue(&self, gateway: &Gateway, limit: u64) -> Option<Key> {
        self.issue_at(&Client::http1(), &gateway.url(""), limit).await
    }

    pub(crate) async fn issue_at(&self, client: &Client, gateway: &str, limit: u64) -> Option<Key> {
        let (url, token) = (format!("{gateway}/admin/keys"), format!("Bearer {ADMIN_TOKEN}"));
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let body = json!({"daily_limit": limit, "label": "l".repeat(180)}).to_string();
        let response = client.send(Method::POST, &url, &headers, body).await;
        if response.status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(response.code(), "store_unavailable");
            return None;
        }
        assert_eq!(response.status, 201, "{response:?}");
        let key = Key { text: response.json()["key"].as_str().unwrap().into(), limit };
        lock(&self.keys).push(key.clone());
        Some(key)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
