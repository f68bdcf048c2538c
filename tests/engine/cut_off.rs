//! Nothing that was completed or charged is missing in the ledger, whatever cuts the gateway off.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use crate::common::{
    Client, Gateway, GatewayCommand, Upstream, Wire, chat_json, eventually, json_response,
    streaming,
};
use bytes::Bytes;
use http::Response;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::{sync::mpsc::UnboundedSender, task::JoinSet};
use tower::BoxError;

type Sender = UnboundedSender<Result<Bytes, BoxError>>;

const FIRST: &str = "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
const LAST: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\
                    \"total_tokens\":7}}\n\ndata: [DONE]\n\n";

/// A gateway whose upstream begins streams and ends them when it is signalled.
struct Scene {
    gateway: Gateway,
    streams: Arc<Mutex<Vec<Sender>>>,
    key: String,
    _upstream: Upstream,
}

impl Scene {
    async fn start(daily_limit: u32) -> Self {
        let streams = Arc::new(Mutex::new(Vec::new()));
        let begun = streams.clone();
        let upstream = Upstream::start(move |_| {
            let (sender, body) = streaming();
            sender.send(Ok(FIRST.into())).unwrap();
            begun.lock().unwrap().push(sender);
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        })
        .await;
        let gateway =
            GatewayCommand::before(upstream.base_url()).env("USAGE_RETENTION_DAYS", "1").start();
        let key = gateway.create_key(json!({ "daily_limit": daily_limit })).await;
        Self { gateway, streams, key, _upstream: upstream }
    }

    /// A request whose response has begun.
    async fn begin(&self) -> Wire {
        let mut wire = Wire::connect(self.gateway.address()).await.unwrap();
        wire.write(&self.key, "{\"stream\":true}").await.unwrap();
        assert_eq!(wire.head().await.unwrap().status, 200);
        assert_eq!(wire.piece().await.unwrap(), FIRST.as_bytes());
        wire
    }

    /// Ends all responses that have begun.
    fn end(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            stream.send(Ok(LAST.into())).unwrap();
        }
    }

    async fn usage(&self) -> Value {
        self.gateway.usage(&self.key).await
    }

    fn file(&self) -> Connection {
        Connection::open(self.gateway.dir().join("quota.db")).unwrap()
    }
}

/// Reads a response to its end.
async fn finish(mut wire: Wire) {
    while !wire.piece().await.unwrap().is_empty() {}
}

#[tokio::test]
async fn streams_cut_off_by_kill_9_are_recorded_as_failed() {
    let mut scene = Scene::start(900).await;
    let whole = scene.begin().await;
    scene.end();
    finish(whole).await;
    let mut cut = Vec::new();
    for _ in 0..5 {
        cut.push(scene.begin().await);
    }
    for life in 1..=2 {
        scene.gateway.kill9();
        scene.gateway.restart();
        let usage = scene.usage().await;
        let requests = &usage["requests"];
        let seen = (&usage["used"], &requests["succeeded"], &requests["failed"]);
        assert_eq!(seen, (&json!(6), &json!(1), &json!(5)), "life {life}: {usage}");
        assert_eq!(usage["tokens"]["total"], 7);
    }
}

#[tokio::test]
async fn requests_in_flight_at_kill_9_stay_counted_and_are_recorded_as_failed() {
    const LIMIT: usize = 5;
    let upstream = Upstream::holding(|_| json_response(chat_json().to_string())).await;
    let mut gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({ "daily_limit": LIMIT })).await;
    for _ in 0..10 {
        let called_before = upstream.count();
        let rejected = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            let (address, key, rejected) = (gateway.address(), key.clone(), rejected.clone());
            clients.spawn(async move {
                let mut wire = Wire::connect(address).await.unwrap();
                wire.write(&key, "{}").await.unwrap();
                if let Ok(head) = wire.head().await {
                    assert_eq!(head.status, 429);
                    rejected.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let are_decided =
            || async { upstream.count() - called_before + rejected.load(Ordering::SeqCst) == 8 };
        eventually("each request is with the upstream or rejected", are_decided).await;
        gateway.kill9();
        clients.join_all().await;
        gateway.restart();
    }
    assert_eq!(upstream.count(), LIMIT, "requests that have reached the upstream");
    let usage = gateway.usage(&key).await;
    assert_eq!(usage["used"], LIMIT, "{usage}");
    assert_eq!(usage["requests"]["failed"], LIMIT, "{usage}");
}

#[tokio::test]
async fn responses_that_end_while_the_file_is_locked_survive_kill_9() {
    let mut scene = Scene::start(900).await;
    let begun = [scene.begin().await, scene.begin().await, scene.begin().await];
    let lock = scene.file();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let (client, ready) = (Client::http1(), scene.gateway.url("/readyz"));
    let is_closed = || async { client.get(&ready).await.status == 503 };
    eventually("the store is closed", is_closed).await;
    scene.end();
    for wire in begun {
        finish(wire).await;
    }
    scene.gateway.kill9();
    drop(lock);
    scene.gateway.restart();
    let usage = scene.usage().await;
    assert_eq!(
        (&usage["used"], &usage["requests"]["succeeded"]),
        (&json!(3), &json!(3)),
        "{usage}"
    );
    assert_eq!(usage["tokens"]["total"], 21, "{usage}");
}

#[tokio::test]
async fn rejected_requests_are_summed_up_and_a_few_are_kept_one_by_one() {
    const REJECTED: u64 = 200;
    let scene = Scene::start(1).await;
    let whole = scene.begin().await;
    scene.end();
    finish(whole).await;
    let mut wire = Wire::connect(scene.gateway.address()).await.unwrap();
    for _ in 0..REJECTED {
        assert_eq!(wire.post(&scene.key, "{}").await.unwrap().0, 429);
    }
    let file = scene.file();
    let number = |sql: &str| file.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
    let summed =
        || async { number("SELECT coalesce(sum(rejected), 0) FROM usage_totals") == REJECTED };
    eventually("all are summed up", summed).await;
    let rows = number("SELECT count(*) FROM requests WHERE outcome = 'rejected'");
    assert!((20..REJECTED / 2).contains(&rows), "{rows} rows");
}
