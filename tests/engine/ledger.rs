//! Every request ends in exactly one entry, with the tokens that were billed for it.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::common::{Gateway, GatewayCommand, Random, Wire, eventually, streaming};
use bytes::Bytes;
use http::{Method, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};
use tower::BoxError;

const REQUESTS: u64 = 20_000;
const WORKERS: u64 = 16;
/// How often the gateway is killed.
const LIVES: u64 = 4;
const LIMIT: u64 = 100;

type Body = BoxBody<Bytes, BoxError>;

/// An upstream that does what each request wishes, and keeps account.
struct Upstream {
    address: SocketAddr,
    account: Arc<Account>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Account {
    requests: AtomicU64,
    tokens: AtomicU64,
    /// Request bodies of which only the beginning has come.
    begun: Mutex<HashSet<String>>,
    /// Requests that wait until their clients have left.
    waiting: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Upstream {
    #[expect(clippy::disallowed_methods, reason = "one task for the server")]
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let account = Arc::<Account>::default();
        let shared = account.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let account = shared.clone();
                let service = service_fn(move |request| respond(account.clone(), request));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                connections.spawn(connection);
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, account, server }
    }

    /// Lets a request go on once it waits.
    async fn release(&self, number: u64) {
        let waits = || async { self.account.waiting.lock().unwrap().contains_key(&number) };
        eventually("a request at the upstream", waits).await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Account {
    fn wait(&self, number: u64) -> oneshot::Receiver<()> {
        let (release, released) = oneshot::channel();
        self.waiting.lock().unwrap().insert(number, release);
        released
    }

    fn go_on(&self, number: u64) {
        let _ = self.waiting.lock().unwrap().remove(&number).unwrap().send(());
    }
}

fn usage(tokens: u64) -> String {
    format!(
        r#""model":"m","usage":{{"prompt_tokens":1,"completion_tokens":{},"total_tokens":{tokens}}}"#,
        tokens - 1
    )
}

fn response(kind: &str, body: Body) -> Response<Body> {
    Response::builder().header(CONTENT_TYPE, kind).body(body).unwrap()
}

fn whole(text: String) -> Body {
    Full::from(text).map_err(|never: Infallible| match never {}).boxed()
}

const FIRST: &str = "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";

async fn respond(
    account: Arc<Account>,
    request: Request<Incoming>,
) -> Result<Response<Body>, BoxError> {
    account.requests.fetch_add(1, Ordering::SeqCst);
    if let Some(number) = request.headers().get("x-body") {
        account.begun.lock().unwrap().insert(number.to_str()?.to_owned());
    }
    let body = request.into_body().collect().await?.to_bytes();
    let wish: Value = serde_json::from_slice(&body)?;
    let (number, tokens) = (wish["n"].as_u64().unwrap(), wish["tokens"].as_u64().unwrap());
    let bill = move |account: &Account| account.tokens.fetch_add(tokens, Ordering::SeqCst);
    let last = format!("data: {{\"choices\":[],{}}}\n\ndata: [DONE]\n\n", usage(tokens));
    match wish["wish"].as_str().unwrap() {
        "json" => {
            bill(&account);
            Ok(response("application/json", whole(format!("{{{}}}", usage(tokens)))))
        }
        "wait" => {
            let _ = account.wait(number).await;
            bill(&account);
            Ok(response("application/json", whole(format!("{{{}}}", usage(tokens)))))
        }
        "stream" => {
            bill(&account);
            Ok(response("text/event-stream", whole(format!("{FIRST}{last}"))))
        }
        "open" => {
            let (sender, body) = streaming();
            sender.send(Ok(FIRST.into()))?;
            let released = account.wait(number);
            let later = async move {
                let _ = released.await;
                bill(&account);
                let _ = sender.send(Ok(last.into()));
            };
            #[expect(clippy::disallowed_methods, reason = "the stub goes on after its head")]
            tokio::spawn(later);
            Ok(response("text/event-stream", body))
        }
        "cut" => {
            let (sender, body) = streaming();
            sender.send(Ok(FIRST.into()))?;
            sender.send(Err("cut".into()))?;
            Ok(response("text/event-stream", body))
        }
        _ => {
            let failed = whole("broken".to_owned());
            Ok(Response::builder().status(500).body(failed).unwrap())
        }
    }
}

/// What the entries must add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    succeeded: u64,
    failed: u64,
    refunded: u64,
    rejected: u64,
    tokens: u64,
    /// Of those that failed, such as may have been over before the gateway saw that the client left.
    perhaps: u64,
}

impl Sums {
    fn add(&mut self, other: Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.refunded += other.refunded;
        self.rejected += other.rejected;
        self.tokens += other.tokens;
        self.perhaps += other.perhaps;
    }

    fn is_met_by(&self, row: &Value) -> bool {
        let of = |name: &str| row[name].as_u64().unwrap();
        let (succeeded, failed) = (of("succeeded"), of("failed"));
        of("requests") == self.succeeded + self.failed
            && succeeded + failed == self.succeeded + self.failed
            && (self.succeeded..=self.succeeded + self.perhaps).contains(&succeeded)
            && of("refunded") == self.refunded
            && of("rejected") == self.rejected
            && row["tokens"]["total"] == self.tokens
            && of("used_today") == self.succeeded + self.failed - self.refunded
    }
}

/// Sends one request of a kind that chance chooses, and returns what must be recorded of it.
async fn act(
    upstream: &Upstream,
    gateway: SocketAddr,
    key: &str,
    number: u64,
    random: &mut Random,
) -> Sums {
    let tokens = 2 + random.below(1000);
    let ask = |wish: &str| json!({"wish": wish, "n": number, "tokens": tokens}).to_string();
    let mut wire = Wire::connect(gateway).await.unwrap();
    let succeeded = Sums { succeeded: 1, tokens, ..Sums::default() };
    let failed = Sums { failed: 1, ..Sums::default() };
    match random.below(16) {
        0..=5 => {
            assert_eq!(wire.post(key, &ask("json")).await.unwrap().0, 200);
            succeeded
        }
        6..=9 => {
            assert_eq!(wire.post(key, &ask("stream")).await.unwrap().0, 200);
            succeeded
        }
        10 => {
            assert_eq!(wire.post(key, &ask("fail")).await.unwrap().0, 500);
            Sums { refunded: 1, ..failed }
        }
        11 => {
            wire.write(key, &ask("cut")).await.unwrap();
            let head = wire.head().await.unwrap();
            // The upstream may have cut it before its head was out.
            let body = wire.body(head).await;
            assert!(head.status == 502 || body.is_err(), "a cut stream is no whole one");
            failed
        }
        12 | 13 => {
            wire.write(key, &ask("wait")).await.unwrap();
            upstream.release(number).await;
            drop(wire);
            upstream.account.go_on(number);
            Sums { tokens, perhaps: 1, ..failed }
        }
        14 => {
            wire.write(key, &ask("open")).await.unwrap();
            wire.head().await.unwrap();
            assert_eq!(wire.piece().await.unwrap(), FIRST.as_bytes());
            drop(wire);
            upstream.release(number).await;
            upstream.account.go_on(number);
            Sums { tokens, perhaps: 1, ..failed }
        }
        _ => {
            let mut socket = TcpStream::connect(gateway).await.unwrap();
            let head = format!(
                // A chat would be read whole first.
                "POST /v1/files HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\
                 X-Body: {number}\r\nContent-Length: 1000\r\n\r\n{{\"wish\""
            );
            socket.write_all(head.as_bytes()).await.unwrap();
            eventually("the beginning of a request body", || async {
                upstream.account.begun.lock().unwrap().contains(&number.to_string())
            })
            .await;
            drop(socket);
            failed
        }
    }
}

/// Sends requests with one key by each of the workers.
async fn life(
    upstream: &Arc<Upstream>,
    gateway: &Gateway,
    keys: &[String],
    first: u64,
    seeds: &mut Random,
) -> HashMap<String, Sums> {
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (upstream, address, keys) = (upstream.clone(), gateway.address(), keys.to_vec());
        let mut random = seeds.fork();
        workers.spawn(async move {
            let each = REQUESTS / LIVES / WORKERS;
            let mut sums: HashMap<String, Sums> = HashMap::new();
            for number in 0..each {
                let key = &keys[random.below(keys.len() as u64) as usize];
                let number = first + worker * each + number;
                let reported = act(&upstream, address, key, number, &mut random).await;
                sums.entry(key.clone()).or_default().add(reported);
            }
            sums
        });
    }
    let mut sums: HashMap<String, Sums> = HashMap::new();
    while let Some(reported) = workers.join_next().await {
        for (key, reported) in reported.unwrap() {
            sums.entry(key).or_default().add(reported);
        }
    }
    sums
}

async fn row(gateway: &Gateway, key: &str) -> Value {
    let path = format!("/admin/usage?group_by=key&key={key}");
    gateway.admin(Method::GET, &path, &Value::Null).await["items"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_requests_have_an_entry_each_over_kills_and_restarts() {
    let mut seeds = Random::seeded("twenty_thousand_requests_have_an_entry_each");
    let upstream = Arc::new(Upstream::start().await);
    let mut gateway = GatewayCommand::before(format!("http://{}/v1", upstream.address))
        .env("ON_CLIENT_GONE", "drain")
        .env("USAGE_RETENTION_DAYS", "1")
        .env("RUST_LOG", "error")
        .start();
    let mut keys = Vec::new();
    for _ in 0..6 {
        keys.push(gateway.create_key(json!({"daily_limit": 0})).await);
    }
    let limited = gateway.create_key(json!({"daily_limit": LIMIT})).await;
    let mut expected: HashMap<String, Sums> = HashMap::new();
    for number in 0..LIVES {
        let first = number * REQUESTS / LIVES;
        for (key, reported) in life(&upstream, &gateway, &keys, first, &mut seeds).await {
            expected.entry(key).or_default().add(reported);
        }
        let mut wire = Wire::connect(gateway.address()).await.unwrap();
        for _ in 0..LIMIT / 2 {
            let ask = json!({"wish": "json", "n": 0, "tokens": 7}).to_string();
            let status = wire.post(&limited, &ask).await.unwrap().0;
            let reported = match status {
                200 => Sums { succeeded: 1, tokens: 7, ..Sums::default() },
                status => {
                    assert_eq!(status, 429);
                    Sums { rejected: 1, ..Sums::default() }
                }
            };
            expected.entry(limited.clone()).or_default().add(reported);
        }
        // What clients have left is recorded when it is over; from then on, and by every later life, too.
        for (key, sums) in &expected {
            eventually(&format!("{sums:?}"), || async {
                sums.is_met_by(&row(&gateway, key).await)
            })
            .await;
        }
        gateway.kill9();
        gateway.restart();
        for (key, sums) in &expected {
            let row = row(&gateway, key).await;
            assert!(sums.is_met_by(&row), "{sums:?}\n{row}");
        }
    }
    let mut all = Sums::default();
    expected.values().for_each(|sums| all.add(*sums));
    assert_eq!(all.tokens, upstream.account.tokens.load(Ordering::SeqCst), "all that was billed");
    let seen = upstream.account.requests.load(Ordering::SeqCst);
    assert_eq!(all.succeeded + all.failed, seen, "a request at the upstream each");
    assert_eq!(expected[&limited].succeeded, LIMIT);
    assert_eq!(single_requests(&gateway), all.succeeded + all.failed, "a row each");
}

/// How many admitted requests the file keeps one by one.
fn single_requests(gateway: &Gateway) -> u64 {
    let file = rusqlite::Connection::open(gateway.dir().join("quota.db")).unwrap();
    file.query_row("SELECT count(*) FROM requests WHERE outcome <> 'rejected'", [], |row| {
        row.get(0)
    })
    .unwrap()
}
