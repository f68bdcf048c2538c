//! What each outcome of a request costs.

mod common;

use std::sync::Arc;

use common::{Client, Gateway, GatewayCommand, eventually};
use http::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};

/// An upstream that does what the path names.
struct Misbehaving {
    base_url: String,
    calls: Arc<Semaphore>,
    held: Arc<Semaphore>,
    server: JoinHandle<()>,
}

impl Misbehaving {
    #[expect(clippy::disallowed_methods, reason = "a task for each connection")]
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (calls, held) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (counted, gate) = (calls.clone(), held.clone());
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, counted.clone(), gate.clone()));
            }
        });
        Self { base_url, calls, held, server }
    }

    /// How many requests have reached it.
    fn count(&self) -> usize {
        self.calls.available_permits()
    }

    fn gateway(&self) -> GatewayCommand {
        GatewayCommand::new()
            .env("UPSTREAM_BASE_URL", &self.base_url)
            .env("UPSTREAM_API_KEY", "sk-sponsor-secret")
            .env("UPSTREAM_HEAD_TIMEOUT", "300ms")
            .env("MAX_BODY_BYTES", "1000")
    }
}

impl Drop for Misbehaving {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut socket: TcpStream, calls: Arc<Semaphore>, held: Arc<Semaphore>) {
    while let Some(path) = read_request(&mut socket).await {
        calls.add_permits(1);
        let doing = path.trim_start_matches("/v1/").to_owned();
        let answer = match doing.as_str() {
            "hang" => std::future::pending().await,
            "hold" => {
                held.acquire().await.unwrap().forget();
                answer(500)
            }
            "leave" => return,
            "short" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.".to_owned(),
            "stream" => {
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n".to_owned()
            }
            "garbage" => "this is no HTTP\r\n\r\n".to_owned(),
            status => answer(status.parse().unwrap()),
        };
        if socket.write_all(answer.as_bytes()).await.is_err() || doing == "short" {
            return;
        }
        if doing == "stream" {
            std::future::pending::<()>().await;
        }
    }
}

fn answer(status: u16) -> String {
    format!("HTTP/1.1 {status} Some\r\nlocation: /else\r\ncontent-length: 2\r\n\r\n{{}}")
}

/// The next request's path; `None` once the connection is over.
async fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1);
            let length = length.map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
            if body.len() >= length {
                return head.split(' ').nth(1).map(str::to_owned);
            }
        }
        if socket.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

async fn usage(gateway: &Gateway, key: &str) -> Value {
    Client::http1().get_as(key, &gateway.url("/usage")).await.json()
}

async fn used(gateway: &Gateway, key: &str) -> u64 {
    usage(gateway, key).await["used"].as_u64().unwrap()
}

async fn post(gateway: &Gateway, key: &str, path: &str, body: &str) -> u16 {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str())];
    let answer =
        Client::http1().open(Method::POST, &gateway.url(path), &headers, body.to_owned()).await;
    let answer = answer.unwrap();
    let status = answer.status().as_u16();
    // Its end may be an error; it costs what it costs.
    let _ = http_body_util::BodyExt::collect(answer.into_body()).await;
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_the_upstream_costs_what_the_contract_says() {
    let upstream = Misbehaving::start().await;
    let gateway = upstream.gateway().start();
    // What the upstream does, what the client is told, and what it costs.
    let table = [
        ("200", 200, 1),
        ("204", 204, 1),
        ("400", 400, 1),
        ("404", 404, 1),
        ("422", 422, 1),
        ("401", 502, 1),
        ("402", 502, 1),
        ("403", 502, 1),
        ("429", 503, 1),
        ("301", 502, 1),
        ("500", 500, 0),
        ("502", 502, 0),
        ("503", 503, 0),
        ("hang", 504, 1),
        ("leave", 502, 1),
        ("garbage", 502, 1),
        ("short", 200, 1),
    ];
    for (doing, status, cost) in table {
        let key = gateway.create_key(json!({"daily_limit": 10})).await;
        assert_eq!(post(&gateway, &key, &format!("/v1/{doing}"), "{}").await, status, "{doing}");
        let usage = usage(&gateway, &key).await;
        assert_eq!(usage["used"], cost, "{doing}");
        assert_eq!(usage["requests"]["refunded"], 1 - cost, "{doing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_not_reached_costs_nothing() {
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    for base_url in [format!("http://{nobody}/v1"), "http://no-such-host.invalid/v1".to_owned()] {
        let gateway = Gateway::before(&base_url);
        let key = gateway.create_key(json!({"daily_limit": 1})).await;
        for _ in 0..5 {
            assert_eq!(post(&gateway, &key, "/v1/chat/completions", "{}").await, 502);
        }
        assert_eq!(used(&gateway, &key).await, 0, "{base_url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_refused_costs_nothing() {
    let upstream = Misbehaving::start().await;
    let gateway = upstream.gateway().start();
    let key = gateway.create_key(json!({"daily_limit": 1})).await;
    assert_eq!(post(&gateway, &key, "/v1/%2e%2e/admin", "{}").await, 400);
    assert_eq!(post(&gateway, &key, "/v1/200", &"x".repeat(2000)).await, 413);
    assert_eq!(post(&gateway, "trial-key-other", "/v1/200", "{}").await, 401);
    assert_eq!(used(&gateway, &key).await, 0);
    assert_eq!(post(&gateway, &key, "/v1/200", "{}").await, 200);
    assert_eq!(post(&gateway, &key, "/v1/200", "{}").await, 429);
    assert_eq!(used(&gateway, &key).await, 1);
    assert_eq!(upstream.count(), 1);
}

/// Sends a request and leaves once the upstream has it, and the answer's begin if there is one.
async fn leave(gateway: &Gateway, key: &str, doing: &str, upstream: &Misbehaving) {
    let reached = upstream.count() + 1;
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    let request = format!(
        "POST /v1/{doing} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n\
         content-length: 2\r\n\r\n{{}}"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    eventually("the upstream has it", || async { upstream.count() == reached }).await;
    if doing == "stream" {
        let mut begin = Vec::new();
        while !begin.windows(3).any(|window| window == b"one") {
            assert_ne!(socket.read_buf(&mut begin).await.unwrap(), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_pays() {
    let upstream = Misbehaving::start().await;
    let gateway = upstream.gateway().env("UPSTREAM_HEAD_TIMEOUT", "20s").start();
    for doing in ["hang", "stream"] {
        let key = gateway.create_key(json!({"daily_limit": 10})).await;
        leave(&gateway, &key, doing, &upstream).await;
        let (gateway, key) = (&gateway, key.as_str());
        eventually("its request is over", || async move {
            usage(gateway, key).await["requests"]["failed"] == 1
        })
        .await;
        assert_eq!(used(gateway, key).await, 1, "{doing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_provoked_refunds_buy_nothing() {
    const LIMIT: usize = 100;
    let upstream = Misbehaving::start().await;
    let gateway = upstream.gateway().start();
    let key = gateway.create_key(json!({"daily_limit": LIMIT})).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (client, key, url) = (Client::http1(), key.clone(), gateway.url("/v1/500"));
        clients.spawn(async move {
            let mut served = 0;
            for _ in 0..200 {
                served += usize::from(client.post_as(&key, &url, &json!({})).await.status == 500);
            }
            served
        });
    }
    let served: usize = clients.join_all().await.into_iter().sum();
    assert_eq!((served, upstream.count()), (2 * LIMIT, 2 * LIMIT));
    let usage = usage(&gateway, &key).await;
    assert_eq!(usage["used"], LIMIT);
    assert_eq!(usage["requests"]["refunded"], LIMIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_after_a_reset_does_not_touch_what_was_used_since() {
    let upstream = Misbehaving::start().await;
    let gateway = upstream.gateway().env("UPSTREAM_HEAD_TIMEOUT", "20s").start();
    let key = gateway.create_key(json!({"daily_limit": 3})).await;
    let (client, url) = (Client::http1(), gateway.url("/v1/hold"));
    let body = json!({});
    let held = client.post_as(&key, &url, &body);
    let meanwhile = async {
        eventually("the upstream has it", || async { upstream.count() == 1 }).await;
        gateway.admin(Method::POST, "/admin/reset-usage", &json!({"key": key})).await;
        assert_eq!(used(&gateway, &key).await, 0);
        assert_eq!(post(&gateway, &key, "/v1/200", "{}").await, 200);
        assert_eq!(post(&gateway, &key, "/v1/200", "{}").await, 200);
        upstream.held.add_permits(1);
    };
    let (held, ()) = tokio::join!(held, meanwhile);
    assert_eq!(held.status, 500);
    assert_eq!(used(&gateway, &key).await, 2);
    assert_eq!(post(&gateway, &key, "/v1/200", "{}").await, 200);
    assert_eq!(post(&gateway, &key, "/v1/200", "{}").await, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_before_or_after_every_request_that_runs_beside_it() {
    const LIMIT: usize = 20;
    const RESETS: usize = 10;
    let upstream = Misbehaving::start().await;
    let gateway = upstream.gateway().start();
    let key = gateway.create_key(json!({"daily_limit": LIMIT})).await;
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (key, url, over) = (key.clone(), gateway.url("/v1/200"), over.clone());
        clients.spawn(async move {
            let (client, mut served) = (Client::http1(), 0);
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                served += usize::from(client.post_as(&key, &url, &json!({})).await.status == 200);
            }
            served
        });
    }
    for _ in 0..RESETS {
        let day_is_used_up = || async { used(&gateway, &key).await == LIMIT as u64 };
        eventually("the day is used up", day_is_used_up).await;
        gateway.admin(Method::POST, "/admin/reset-usage", &json!({"key": key})).await;
    }
    let day_is_used_up = || async { used(&gateway, &key).await == LIMIT as u64 };
    eventually("the day is used up", day_is_used_up).await;
    over.store(true, std::sync::atomic::Ordering::SeqCst);
    let served: usize = clients.join_all().await.into_iter().sum();
    // Each reset came when nothing was left, so each gave exactly the limit.
    assert_eq!((served, upstream.count()), (LIMIT * (RESETS + 1), LIMIT * (RESETS + 1)));
    let report = gateway.admin(Method::GET, "/admin/keys", &Value::Null).await;
    assert_eq!(report["keys"][0]["total_used"], LIMIT * (RESETS + 1));
}
