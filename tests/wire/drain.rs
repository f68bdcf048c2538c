//! `ON_CLIENT_GONE`: whether a response is drained when its client has disconnected.

use std::sync::{Arc, Mutex};

use crate::common::{
    Client, DEADLINE, Gateway, GatewayCommand, Upstream, Wire, eventually, streaming,
};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt, net::TcpStream, sync::mpsc::UnboundedSender, task::JoinSet, time::timeout,
};
use tower::BoxError;

type Sender = UnboundedSender<Result<Bytes, BoxError>>;

const FIRST: &str = "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
const LAST: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\
                    \"total_tokens\":7}}\n\ndata: [DONE]\n\n";

/// A gateway, and the streams that its upstream has begun.
struct Scene {
    gateway: Gateway,
    upstream: Upstream,
    streams: Arc<Mutex<Vec<Sender>>>,
    key: String,
}

impl Scene {
    async fn start(action: &str, held: bool) -> Self {
        Self::with(action, held, "30s").await
    }

    async fn with(action: &str, held: bool, grace: &str) -> Self {
        let streams = Arc::new(Mutex::new(Vec::new()));
        let begun = streams.clone();
        let response = move |_| {
            let (sender, body) = streaming();
            sender.send(Ok(FIRST.into())).unwrap();
            begun.lock().unwrap().push(sender);
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        };
        let upstream = match held {
            true => Upstream::holding(response).await,
            false => Upstream::start(response).await,
        };
        let gateway = GatewayCommand::before(upstream.base_url())
            .env("ON_CLIENT_GONE", action)
            .env("USAGE_RETENTION_DAYS", "1")
            .env("SHUTDOWN_GRACE", grace)
            .env("WORKER_THREADS", "1")
            .start();
        let key = gateway.create_key(json!({"daily_limit": 900})).await;
        Self { gateway, upstream, streams, key }
    }

    async fn ask(&self) -> Wire {
        let mut wire = Wire::connect(self.gateway.address()).await.unwrap();
        wire.write(&self.key, "{\"stream\":true}").await.unwrap();
        wire
    }

    /// The next stream that the upstream has begun.
    async fn stream(&self) -> Sender {
        eventually("a stream", || async { !self.streams.lock().unwrap().is_empty() }).await;
        self.streams.lock().unwrap().remove(0)
    }

    async fn usage_once(&self, what: &str, is_reported: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || async { is_reported(&self.gateway.usage(&self.key).await) }).await;
        self.gateway.usage(&self.key).await
    }
}

fn tokens(usage: &Value) -> u64 {
    usage["tokens"]["total"].as_u64().unwrap()
}

#[tokio::test]
async fn the_usage_of_a_stream_whose_client_has_left_is_recorded() {
    let scene = Scene::start("drain", false).await;
    let mut wire = scene.ask().await;
    assert_eq!(wire.head().await.unwrap().status, 200);
    wire.piece().await.unwrap();
    drop(wire);
    let stream = scene.stream().await;
    stream.send(Ok(FIRST.into())).unwrap();
    stream.send(Ok(LAST.into())).unwrap();
    drop(stream);
    let usage = scene.usage_once("its tokens", |usage| tokens(usage) == 7).await;
    let requests = &usage["requests"];
    assert_eq!((&requests["succeeded"], &requests["failed"]), (&json!(0), &json!(1)), "{usage}");
    assert_eq!(usage["used"], 1);
}

#[tokio::test]
async fn a_client_that_leaves_at_the_last_event_has_had_the_whole_response() {
    for action in ["drain", "abort"] {
        let scene = Scene::start(action, false).await;
        let mut wire = scene.ask().await;
        assert_eq!(wire.head().await.unwrap().status, 200);
        let stream = scene.stream().await;
        stream.send(Ok(LAST.into())).unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"[DONE]\n\n") {
            read.extend(wire.piece().await.unwrap());
        }
        drop(wire);
        // The body ends only now, if it is still read.
        let stream = Some(stream).filter(|_| action == "abort");
        let usage = scene.usage_once("its tokens", |usage| tokens(usage) == 7).await;
        drop(stream);
        let requests = &usage["requests"];
        let reported = (&requests["succeeded"], &requests["failed"]);
        assert_eq!(reported, (&json!(1), &json!(0)), "{action}: {usage}");
    }
}

#[tokio::test]
async fn the_usage_of_a_stream_whose_client_left_before_the_head_is_recorded() {
    let scene = Scene::start("drain", true).await;
    let wire = scene.ask().await;
    scene.upstream.reached_by(1).await;
    drop(wire);
    scene.upstream.release(1);
    let stream = scene.stream().await;
    stream.send(Ok(LAST.into())).unwrap();
    drop(stream);
    let usage = scene.usage_once("its tokens", |usage| tokens(usage) == 7).await;
    assert_eq!(usage["used"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_waits_for_draining_responses() {
    let mut scene = Scene::start("drain", false).await;
    let mut wire = scene.ask().await;
    assert_eq!(wire.head().await.unwrap().status, 200);
    drop(wire);
    let stream = scene.stream().await;
    scene.gateway.terminate();
    let is_closed = || async { TcpStream::connect(scene.gateway.address()).await.is_err() };
    eventually("the shutdown", is_closed).await;
    stream.send(Ok(LAST.into())).unwrap();
    drop(stream);
    assert!(scene.gateway.wait().success());
    scene.gateway.restart();
    let usage = scene.usage_once("its tokens", |usage| tokens(usage) == 7).await;
    assert_eq!(usage["requests"]["failed"], 1, "{usage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_all_streams_of_a_connection_with_an_error() {
    const STREAMS: usize = 80;
    for action in ["drain", "abort"] {
        let mut scene = Scene::with(action, false, "100ms").await;
        let client = Client::http2();
        let (url, key) =
            (scene.gateway.url("/v1/chat/completions"), format!("Bearer {}", scene.key));
        let headers = [("authorization", &*key)];
        let ask = || client.open(Method::POST, &url, &headers, "{\"stream\":true}");
        let responses = join_all((0..STREAMS).map(|_| ask())).await;
        assert!(responses.iter().all(|response| response.as_ref().unwrap().status() == 200));
        scene.gateway.terminate();
        assert!(scene.gateway.wait().success());
        scene.gateway.restart();
        let usage = scene.gateway.usage(&scene.key).await;
        assert_eq!(
            (&usage["used"], &usage["requests"]["failed"]),
            (&json!(80), &json!(80)),
            "{action}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_during_the_request_body_are_charged() {
    for action in ["drain", "abort"] {
        let scene = Scene::start(action, false).await;
        for left in 0..3 {
            let mut wire = TcpStream::connect(scene.gateway.address()).await.unwrap();
            let head = format!(
                "POST /v1/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {}\r\n\
                 Content-Length: 100\r\n\r\n{{\"model\":",
                scene.key
            );
            wire.write_all(head.as_bytes()).await.unwrap();
            scene.upstream.reached_by(2 * left + 1).await;
            drop(wire);

            let socket = TcpStream::connect(scene.gateway.address()).await.unwrap();
            let (mut requests, connection) = h2::client::handshake(socket).await.unwrap();
            let connection = JoinSet::from_iter([connection]);
            let request = Request::post(scene.gateway.url("/v1/x"))
                .header("authorization", format!("Bearer {}", scene.key));
            let request = request.body(()).unwrap();
            let (response, mut body) = requests.send_request(request, false).unwrap();
            body.send_data(Bytes::from("{\"model\":"), false).unwrap();
            scene.upstream.reached_by(2 * left + 2).await;
            // The socket goes before the stream does.
            drop(connection);
            drop((response, body));
        }
        let reported = |usage: &Value| usage["requests"]["failed"] == 6;
        let usage = scene.usage_once("the events", reported).await;
        assert_eq!(
            (&usage["used"], &usage["requests"]["refunded"]),
            (&json!(6), &json!(0)),
            "{usage}"
        );
        let file = Connection::open(scene.gateway.dir().join("quota.db")).unwrap();
        let sql = "SELECT count(*) FROM requests WHERE outcome = 'client_gone'";
        let gone: u64 = file.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(gone, 6, "{action}");
    }
}

#[tokio::test]
async fn without_draining_the_upstream_connection_is_closed_at_once() {
    let scene = Scene::start("abort", false).await;
    let mut wire = scene.ask().await;
    assert_eq!(wire.head().await.unwrap().status, 200);
    assert_eq!(wire.piece().await.unwrap(), FIRST.as_bytes());
    drop(wire);
    let stream = scene.stream().await;
    timeout(DEADLINE, stream.closed()).await.expect("the upstream is left");
    let reported = |usage: &Value| usage["requests"]["failed"] == 1;
    let usage = scene.usage_once("the event", reported).await;
    assert_eq!(tokens(&usage), 0);
    let error = &usage["errors"][0];
    assert_eq!((&error["code"], &error["status"]), (&json!("client_gone"), &json!(200)), "{usage}");
    assert_eq!((&error["model"], &error["refunded"]), (&json!("m"), &json!(false)), "{usage}");
}
