//! Balancers in front of the gateway, as their manuals configure them, and as the files of
//! `docs/deploy/proxies` do.

mod reverse_proxy;

use std::{
    collections::HashSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::common::{
    ADMIN_TOKEN, Client, Gateway, GatewayCommand, Program, Random, Upstream, eventually, full,
    json_response, streaming,
};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Response, Version};
use http_body_util::BodyExt;
use reverse_proxy::{CLIENT, HOST, ProxyCommand, ReverseProxy, RunningProxy, free, listens, read};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

fn nginx(listen: SocketAddr, gateway: SocketAddr, upstream: &str, location: &str) -> Program {
    Program::nginx(&format!(
        "upstream gateway {{ server {gateway}; {upstream} }}
        server {{
            listen {listen};
            location / {{ proxy_pass http://gateway; {location} }}
        }}"
    ))
}

fn haproxy(listen: SocketAddr, stats: SocketAddr, gateway: SocketAddr) -> Program {
    let configuration = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n timeout check 5s\n\
         frontend public\n bind {listen}\n default_backend gateways\n\
         backend gateways\n option httpchk GET /healthz\n\
         server first {gateway} check inter 50ms fall 1\n\
         listen statistics\n bind {stats}\n stats enable\n stats uri /\n"
    );
    Program::start(&["haproxy", "-f"], &configuration)
}

async fn gateway(upstream: &Upstream, limit: u32) -> (Gateway, String) {
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": limit})).await;
    (gateway, key)
}

#[tokio::test]
#[ignore = "needs haproxy"]
async fn haproxy_finds_the_gateway_healthy() {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let (mut gateway, key) = gateway(&upstream, 0).await;
    let (listen, stats) = (free(), free());
    let _haproxy = haproxy(listen, stats, gateway.address());
    listens(stats).await;
    let state = async || Client::http1().get(&format!("http://{stats}/;csv")).await.text();
    eventually("a good check", || async { state().await.contains("L7OK") }).await;
    let url = format!("http://{listen}/v1/chat/completions");
    let response = Client::http1().post_as(&key, &url, &json!({"model": "m"})).await;
    assert_eq!(response.status, 200, "{response:?}");
    gateway.kill9();
    eventually("a failed check", || async { !state().await.contains("L7OK") }).await;
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn a_bare_proxy_pass_streams() {
    let (sender, body) = streaming();
    let body = Mutex::new(Some(body));
    let upstream = Upstream::start(move |_| {
        let body = body.lock().unwrap().take().unwrap();
        Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    })
    .await;
    let (gateway, key) = gateway(&upstream, 0).await;
    let listen = free();
    let _nginx = nginx(listen, gateway.address(), "", "");
    listens(listen).await;
    let url = format!("http://{listen}/v1/chat/completions");
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", &*authorization)];
    sender.send(Ok(Bytes::from_static(b"data: 1\n\n"))).unwrap();
    let mut response =
        Client::http1().open(Method::POST, &url, &headers, "{}").await.unwrap().into_body();
    // The upstream does not go on before the first event has come.
    let first =
        tokio::time::timeout(crate::common::DEADLINE, response.frame()).await.expect("an event");
    assert_eq!(first.unwrap().unwrap().into_data().unwrap(), "data: 1\n\n");
    drop(sender);
    assert!(response.frame().await.is_none());
}

/// nginx keeps its connections to the gateway, and responds with 502 where one of them closes without a word.
#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_loses_no_rejection_on_kept_connections() {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let (gateway, key) = gateway(&upstream, 1).await;
    let listen = free();
    let kept = "proxy_http_version 1.1; proxy_set_header Connection \"\"; \
                proxy_request_buffering off;";
    let _nginx = nginx(listen, gateway.address(), "keepalive 4;", kept);
    listens(listen).await;
    let (client, url) = (Client::http1(), format!("http://{listen}/v1/x"));
    let mut statuses = Vec::new();
    for _ in 0..200 {
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", &*authorization)];
        let response = client.send(Method::POST, &url, &headers, vec![b'x'; 100_000]).await;
        statuses.push(response.status.as_u16());
    }
    assert_eq!(statuses, [vec![200], vec![429; 199]].concat());
}

#[tokio::test]
async fn event_streams_disable_proxy_buffering() {
    for (content_type, expected) in [
        ("text/event-stream", "no"),
        ("Text/Event-Stream; charset=utf-8", "no"),
        // Headers of this family steer nginx, and are not the upstream's to send.
        ("application/json", ""),
    ] {
        let upstream = Upstream::start(move |_| {
            let response = Response::builder().header("content-type", content_type);
            response.body(full("data: 1\n\n")).unwrap()
        })
        .await;
        let (gateway, key) = gateway(&upstream, 0).await;
        let response = Client::http1().get_as(&key, &gateway.url("/v1/x")).await;
        assert_eq!(response.header("x-accel-buffering"), expected, "{content_type}");
    }
}

/// Makes these tests one for each program.
macro_rules! for_each_program {
    ($($name:ident)*) => {
        mod nginx {
            $(#[tokio::test]
            #[ignore = "needs nginx"]
            async fn $name() {
                super::$name(super::ReverseProxy::Nginx).await;
            })*
        }
        mod caddy {
            $(#[tokio::test]
            #[ignore = "needs caddy"]
            async fn $name() {
                super::$name(super::ReverseProxy::Caddy).await;
            })*
        }
        mod haproxy {
            $(#[tokio::test]
            #[ignore = "needs haproxy"]
            async fn $name() {
                super::$name(super::ReverseProxy::HaProxy).await;
            })*
        }
    };
}

for_each_program! {
    the_file_is_accepted
    an_event_stream_arrives_event_by_event
    any_response_arrives_piece_by_piece
    a_request_body_of_10_mib_streams_and_arrives_whole
    a_request_body_beyond_the_limit_gets_the_gateways_413
    the_client_is_known_by_its_address_and_no_forged_one_is_believed
    the_admin_page_may_change_keys_and_pages_of_other_sites_may_not
    no_request_is_lost_where_the_proxys_idle_connections_end
    no_rejection_is_lost_on_kept_connections
    heads_of_12_kib_pass
    many_requests_share_an_http2_connection
    a_head_that_does_not_come_is_not_waited_for
    a_client_that_leaves_a_stream_is_noticed_upstream
    a_client_that_leaves_before_the_head_is_noticed
    restarts_of_the_gateway_send_and_charge_no_request_twice
    without_the_gateway_the_response_is_json
    metrics_are_for_this_machine
    keys_are_in_no_log_of_the_proxy
    pages_have_links_to_the_public_url
    plain_http_leads_to_https
    the_users_commands_work_with_the_public_name
    the_gateways_time_limits_end_a_request_before_the_proxys
    the_guides_commands_install_the_file
    the_guides_commands_show_that_it_works
}

const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];
const CHAT: &str = "/v1/chat/completions";
const MIB: usize = 1024 * 1024;

/// A gateway that believes a proxy on this machine, and a program in front of it.
struct Scene {
    proxy: RunningProxy,
    gateway: Gateway,
    key: String,
    _database: TempDir,
}

impl Scene {
    async fn start(kind: ReverseProxy, upstream: &Upstream) -> Self {
        Self::with(kind, command(upstream), |proxy| proxy).await
    }

    async fn with(
        kind: ReverseProxy,
        command: GatewayCommand,
        change: impl FnOnce(ProxyCommand) -> ProxyCommand,
    ) -> Self {
        let database = in_memory();
        let path = database.path().join("quota.db");
        let gateway = command.env("DATABASE_URL", path.to_str().unwrap()).start();
        let key = gateway.create_key(json!({"daily_limit": 900})).await;
        let proxy = change(ProxyCommand::new(kind, gateway.address())).start().await;
        Self { proxy, gateway, key, _database: database }
    }

    async fn connect(&self, version: Version) -> reverse_proxy::Connection {
        self.proxy.connect(version).await
    }

    async fn used(&self) -> u64 {
        self.gateway.used(&self.key).await
    }

    /// Runs commands of a client's machine, which must succeed, and returns what they print.
    async fn shell(&self, commands: &str) -> String {
        let home = TempDir::new().unwrap();
        let settings = format!(
            "connect-to = {HOST}:443:{}\nconnect-to = {HOST}:80:{}\ninterface = {CLIENT}\n\
             cacert = {:?}\nsilent\n",
            self.proxy.https,
            self.proxy.http,
            self.proxy.certificate()
        );
        fs::write(home.path().join(".curlrc"), settings).unwrap();
        let mut shell = tokio::process::Command::new("bash");
        let shell = shell.args(["-euo", "pipefail", "-c", commands]).env("CURL_HOME", home.path());
        let printed = timeout(crate::common::DEADLINE, shell.output()).await.unwrap().unwrap();
        assert!(printed.status.success(), "{commands}\n{printed:?}");
        String::from_utf8(printed.stdout).unwrap()
    }
}

/// A directory on no disk, if there is such: one that others keep busy makes the gateway response 503.
fn in_memory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

fn command(upstream: &Upstream) -> GatewayCommand {
    GatewayCommand::before(upstream.base_url()).env("TRUSTED_PROXIES", "127.0.0.1")
}

async fn the_file_is_accepted(kind: ReverseProxy) {
    let said = ProxyCommand::new(kind, free()).check();
    let text = String::from_utf8_lossy(&said.stderr) + String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{text}");
    // Nobody says whether the certificate of a test has been revoked.
    for line in text.lines().filter(|line| !line.contains("OCSP")) {
        // As nginx, HAProxy and Caddy write levels: the name of a directory for tests may spell "warn".
        for complaint in ["[warn", "[alert", "\"warn\"", "deprecated", "not formatted"] {
            assert!(!line.to_lowercase().contains(complaint), "{text}");
        }
    }
}

async fn an_event_stream_arrives_event_by_event(kind: ReverseProxy) {
    arrives_piece_by_piece(kind, "text/event-stream").await;
}

/// Speech, say.
async fn any_response_arrives_piece_by_piece(kind: ReverseProxy) {
    arrives_piece_by_piece(kind, "audio/mpeg").await;
}

async fn arrives_piece_by_piece(kind: ReverseProxy, content_type: &'static str) {
    let streams = Arc::new(Mutex::new(Vec::new()));
    let begun = streams.clone();
    let upstream = Upstream::start(move |_| {
        let (sender, body) = streaming();
        // nginx holds an HTTP/2 head until there is an event.
        sender.send(Ok("data: 0\n\n".into())).unwrap();
        begun.lock().unwrap().push(sender);
        Response::builder().header("content-type", content_type).body(body).unwrap()
    })
    .await;
    let scene = Scene::start(kind, &upstream).await;
    let authorization = format!("Bearer {}", scene.key);
    let headers = [("authorization", &*authorization)];
    for version in VERSIONS {
        let mut client = scene.connect(version).await;
        let response = client.open(Method::POST, CHAT, &headers, full("{}")).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
        let mut body = response.into_body();
        let sender = streams.lock().unwrap().pop().expect("a stream");
        // The upstream does not go on before the event has come.
        for event in 0..10 {
            let [event, next] = [event, event + 1].map(|event| format!("data: {event}\n\n"));
            let mut got = Vec::new();
            while got.len() < event.len() {
                let frame = timeout(crate::common::DEADLINE, body.frame()).await.expect("an event");
                got.extend(frame.unwrap().unwrap().into_data().unwrap());
            }
            assert_eq!(String::from_utf8_lossy(&got), event, "{version:?}");
            sender.send(Ok(next.into())).unwrap();
        }
        drop(sender);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "data: 10\n\n");
    }
}

async fn a_request_body_of_10_mib_streams_and_arrives_whole(kind: ReverseProxy) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let scene = Scene::start(kind, &upstream).await;
    let sent = Bytes::from(Random::seeded("request body").bytes(10 * MIB));
    let authorization = format!("Bearer {}", scene.key);
    let length = sent.len().to_string();
    let headers = [
        ("authorization", &*authorization),
        ("content-type", "application/octet-stream"),
        ("content-length", &*length),
    ];
    for (number, version) in VERSIONS.into_iter().enumerate() {
        // With a length, and without.
        for (again, headers) in [&headers[..], &headers[..2]].into_iter().enumerate() {
            let (sender, body) = streaming();
            let mut client = scene.connect(version).await;
            let response = client.open(Method::POST, "/v1/audio/transcriptions", headers, body);
            let sent = &sent;
            let feed = async {
                sender.send(Ok(sent.slice(..MIB))).unwrap();
                // The rest is not sent before the upstream has the beginning.
                upstream.reached_by(2 * number + again + 1).await;
                sender.send(Ok(sent.slice(MIB..))).unwrap();
                drop(sender);
            };
            let (response, ()) = tokio::join!(response, feed);
            assert_eq!(read(response.unwrap()).await.status, 200);
            assert!(upstream.last().body == sent, "the request body has changed: {version:?}");
        }
    }
}

async fn a_request_body_beyond_the_limit_gets_the_gateways_413(kind: ReverseProxy) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let scene = Scene::start(kind, &upstream).await;
    let authorization = format!("Bearer {}", scene.key);
    let whole = Bytes::from(vec![b'x'; 33 * MIB]);
    let headers = [("authorization", &*authorization)];
    for version in VERSIONS {
        let mut client = scene.connect(version).await;
        let rejected = client.send(Method::POST, CHAT, &headers, whole.clone()).await;
        assert_eq!(rejected.status, 413, "{version:?}: {rejected:?}");
        assert_eq!(rejected.header("content-type"), "application/json");
        assert_eq!(rejected.header("x-should-retry"), "false");
        assert_eq!(rejected.code(), "request_too_large");
    }
    assert_eq!((scene.used().await, upstream.count()), (0, 0));
    let mut client = scene.connect(Version::HTTP_2).await;
    let fits = client.send(Method::POST, CHAT, &headers, whole.slice(..32 * MIB)).await;
    assert_eq!(fits.status, 200, "{fits:?}");
}

async fn the_client_is_known_by_its_address_and_no_forged_one_is_believed(kind: ReverseProxy) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let command = command(&upstream).env("RUST_LOG", "info").env("ADMIN_ALLOW", "127.0.0.0/8");
    let scene = Scene::with(kind, command, |proxy| proxy).await;
    let (token, key) = (format!("Bearer {ADMIN_TOKEN}"), format!("Bearer {}", scene.key));
    const FORGED: &str = "198.51.100.9";
    let forwarded = format!("for={FORGED}");
    for version in VERSIONS {
        let mut client = scene.connect(version).await;
        for name in ["x-forwarded-for", "x-real-ip", "forwarded", "x-forwarded-host"] {
            let forged = if name == "forwarded" { &*forwarded } else { FORGED };
            let headers = [("authorization", &*token), (name, forged)];
            let made = client.send(Method::POST, "/admin/keys", &headers, "{}").await;
            assert_eq!(made.status, 201, "{made:?}");
            let trail = scene.gateway.admin(Method::GET, "/admin/audit?limit=1", &Value::Null);
            assert_eq!(trail.await["entries"][0]["ip"], CLIENT.to_string(), "{name}");

            let headers = [("authorization", &*key), (name, forged)];
            assert_eq!(client.send(Method::POST, CHAT, &headers, "{}").await.status, 200);
            let headers = upstream.last().headers;
            assert!(!format!("{headers:?}").contains(FORGED), "{headers:?}");
        }
    }
    let path = format!("/admin/keys/{}", scene.key);
    let record = scene.gateway.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(record["addresses_24h"], 1, "{record}");
    let line = format!("client_addr={CLIENT}");
    eventually("the address in the log", || async { scene.gateway.printed().contains(&line) })
        .await;
    assert!(!scene.gateway.printed().contains(FORGED));
    // The allow list is about the client, too.
    let command = crate::common::GatewayCommand::before(upstream.base_url())
        .env("TRUSTED_PROXIES", "127.0.0.1")
        .env("ADMIN_ALLOW", "127.0.0.1");
    let scene = Scene::with(kind, command, |proxy| proxy).await;
    let headers = [("authorization", &*token), ("x-forwarded-for", "127.0.0.1")];
    let mut client = scene.connect(Version::HTTP_2).await;
    let rejected = client.send(Method::GET, "/admin/keys", &headers, "").await;
    assert_eq!((rejected.status.as_u16(), &*rejected.code()), (403, "address_not_allowed"));
}

async fn the_admin_page_may_change_keys_and_pages_of_other_sites_may_not(kind: ReverseProxy) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let scene = Scene::start(kind, &upstream).await;
    let token = format!("Bearer {ADMIN_TOKEN}");
    let own = format!("https://{HOST}");
    for version in VERSIONS {
        let mut client = scene.connect(version).await;
        for (origin, site, status) in [
            (&*own, Some("same-origin"), 201),
            ("https://attacker.example", Some("cross-site"), 403),
            // Browsers that do not know `Sec-Fetch-Site`: judged by `Host`.
            (&*own, None, 201),
            ("https://attacker.example", None, 403),
        ] {
            let mut headers = vec![("authorization", &*token), ("origin", origin)];
            headers.extend(site.map(|site| ("sec-fetch-site", site)));
            let response = client.send(Method::POST, "/admin/keys", &headers, "{}").await;
            assert_eq!(response.status, status, "{origin} {site:?} {response:?}");
            let code = if status == 403 { "cross_site_request" } else { "" };
            assert_eq!(response.code(), code);
        }
    }
}

/// Makes a program keep its idle connections to the gateway for a second.
fn idle_for_a_second(proxy: ProxyCommand) -> ProxyCommand {
    match proxy.kind() {
        ReverseProxy::Nginx => proxy.replace("keepalive_timeout 60s;", "keepalive_timeout 1s;"),
        ReverseProxy::Caddy => proxy.replace("keepalive 60s", "keepalive 1s"),
        // By itself HAProxy closes half of them every 5 s.
        ReverseProxy::HaProxy => {
            let server = "server gateway 127.0.0.1:8787";
            proxy.replace(server, &format!("{server} pool-purge-delay 100ms"))
        }
    }
}

async fn no_request_is_lost_where_the_proxys_idle_connections_end(kind: ReverseProxy) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let command = command(&upstream).env("CLIENT_IDLE_TIMEOUT", "2s");
    let scene = Scene::with(kind, command, idle_for_a_second).await;
    let random = Mutex::new(Random::seeded("pauses"));
    // Pauses about as long as each side keeps an idle connection: all of these meet the moment of its end.
    let clients = (0..24).map(async |number: u64| {
        let mut client = scene.connect(VERSIONS[number as usize % 2]).await;
        for around in [0, 1000, 2000_u64] {
            let jitter = random.lock().unwrap().below(40);
            tokio::time::sleep(Duration::from_millis((around + jitter).saturating_sub(20))).await;
            let response = client.post_as(&scene.key, CHAT, "{}").await;
            assert_eq!(response.status, 200, "after {around} ms: {response:?}");
        }
    });
    join_all(clients).await;
    assert_eq!((scene.used().await, upstream.count()), (72, 72));
}

async fn no_rejection_is_lost_on_kept_connections(kind: ReverseProxy) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let scene = Scene::start(kind, &upstream).await;
    let spent = scene.gateway.create_key(json!({"daily_limit": 1})).await;
    let body = "x".repeat(100_000);
    for version in VERSIONS {
        let mut client = scene.connect(version).await;
        if version == Version::HTTP_11 {
            assert_eq!(client.post_as(&spent, CHAT, "{}").await.status, 200);
        }
        for number in 0..100 {
            let (key, status) = if number % 2 == 0 { (&*spent, 429) } else { ("trial-none", 401) };
            let response = client.post_as(key, CHAT, &body).await;
            assert_eq!(response.status, status, "{number}: {response:?}");
            assert_eq!(response.header("content-type"), "application/json");
        }
    }
    assert_eq!(upstream.count(), 1);
}

async fn heads_of_12_kib_pass(kind: ReverseProxy) {
    let long = "x".repeat(6 * 1024);
    let upstream = Upstream::start(move |_| {
        Response::builder().header("x-a", &long).header("x-b", &long).body(full("{}")).unwrap()
    })
    .await;
    let scene = Scene::start(kind, &upstream).await;
    for version in VERSIONS {
        let response = scene.connect(version).await.post_as(&scene.key, CHAT, "{}").await;
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.header("x-b").len(), 6 * 1024);
    }
}

async fn many_requests_share_an_http2_connection(kind: ReverseProxy) {
    let upstream = Upstream::holding(|request| json_response(request.into_body())).await;
    let scene = Scene::start(kind, &upstream).await;
    let client = scene.connect(Version::HTTP_2).await;
    let authorization = format!("Bearer {}", scene.key);
    let mut clients: Vec<_> = (0..50).map(|_| client.share()).collect();
    let responses = clients.iter_mut().enumerate().map(async |(number, client)| {
        let body = format!("{{\"number\":{number}}}");
        let headers = [("authorization", &*authorization)];
        let response = client.send(Method::POST, CHAT, &headers, body.clone()).await;
        assert_eq!((response.status.as_u16(), response.text()), (200, body));
    });
    let release = async {
        // All of them are under way at once.
        upstream.reached_by(50).await;
        upstream.release(50);
    };
    tokio::join!(join_all(responses), release);
}

async fn a_head_that_does_not_come_is_not_waited_for(kind: ReverseProxy) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let limit = match kind {
        ReverseProxy::Nginx => "client_header_timeout ",
        ReverseProxy::Caddy => "read_header ",
        ReverseProxy::HaProxy => "timeout http-request ",
    };
    // 10 s, were they not too long for a test.
    let quick = |proxy: ProxyCommand| proxy.replace(&format!("{limit}10s"), &format!("{limit}1s"));
    let scene = Scene::with(kind, command(&upstream), quick).await;
    let mut client = scene.proxy.connect_tls(CLIENT, Version::HTTP_11).await;
    client.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost: ").await.unwrap();
    let mut response = Vec::new();
    // A response or none, and the end.
    let _ =
        timeout(crate::common::DEADLINE, client.read_to_end(&mut response)).await.expect("the end");
}

async fn a_client_that_leaves_a_stream_is_noticed_upstream(kind: ReverseProxy) {
    let streams = Arc::new(Mutex::new(Vec::new()));
    let begun = streams.clone();
    let upstream = Upstream::start(move |_| {
        let (sender, body) = streaming();
        sender.send(Ok("data: 1\n\n".into())).unwrap();
        begun.lock().unwrap().push(sender);
        Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    })
    .await;
    let scene = Scene::start(kind, &upstream).await;
    let authorization = format!("Bearer {}", scene.key);
    let headers = [("authorization", &*authorization)];
    for (number, version) in VERSIONS.into_iter().enumerate() {
        let mut client = scene.connect(version).await;
        let mut response = client.open(Method::POST, CHAT, &headers, full("{}")).await.unwrap();
        response.frame().await.unwrap().unwrap();
        drop((response, client));
        let sender = streams.lock().unwrap().pop().unwrap();
        timeout(crate::common::DEADLINE, sender.closed()).await.expect("the upstream to be let go");
        assert_eq!(scene.used().await, number as u64 + 1, "the charge stays");
    }
}

async fn a_client_that_leaves_before_the_head_is_noticed(kind: ReverseProxy) {
    let upstream = Upstream::holding(|_| json_response("{}")).await;
    let scene = Scene::start(kind, &upstream).await;
    let authorization = format!("Bearer {}", scene.key);
    let headers = [("authorization", &*authorization)];
    for (number, version) in VERSIONS.into_iter().enumerate() {
        let mut client = scene.connect(version).await;
        tokio::select! {
            response = client.open(Method::POST, CHAT, &headers, full("{}")) => panic!("{response:?}"),
            () = upstream.reached_by(number + 1) => {}
        }
        drop(client);
        eventually("the end in the ledger", || async {
            scene.gateway.usage(&scene.key).await["requests"]["failed"] == number + 1
        })
        .await;
        assert_eq!(scene.used().await, number as u64 + 1, "the charge stays");
    }
}

const CLIENTS: usize = 8;

async fn restarts_of_the_gateway_send_and_charge_no_request_twice(kind: ReverseProxy) {
    let upstream = Upstream::holding(|_| json_response("{}")).await;
    let command = command(&upstream).env("PORT", free().port().to_string());
    let mut scene = Scene::with(kind, command, |proxy| proxy).await;
    let (sent, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let statuses = Mutex::new(HashSet::new());
    let (proxy, key) = (&scene.proxy, &scene.key);
    let clients = (0..CLIENTS).map(async |number: usize| {
        let mut client = proxy.connect(VERSIONS[number % 2]).await;
        while !over.load(Ordering::Relaxed) {
            let number = sent.fetch_add(1, Ordering::Relaxed);
            let (authorization, id) = (format!("Bearer {key}"), number.to_string());
            // What proxies take for a leave to send a request again.
            let headers = [("authorization", &*authorization), ("idempotency-key", &*id)];
            let sent = match number % 3 {
                0 => client.open(Method::GET, "/v1/files", &headers, full("")).await,
                _ => client.open(Method::POST, CHAT, &headers, full("{}")).await,
            };
            match sent {
                Ok(response) => {
                    statuses.lock().unwrap().insert(response.status().as_u16());
                    let _ = response.into_body().collect().await;
                }
                Err(_) => client = proxy.connect(VERSIONS[number % 2]).await,
            }
        }
    });
    let gateway = &mut scene.gateway;
    let restarts = async {
        for _ in 0..3 {
            let completed = upstream.count() + 40;
            upstream.release(40);
            // Each client has a request under way when it ends, with no warning.
            upstream.reached_by(completed + CLIENTS).await;
            gateway.kill9();
            tokio::time::sleep(Duration::from_millis(50)).await;
            gateway.restart();
        }
        let completed = upstream.count() + 40;
        upstream.release(Upstream::ALL);
        upstream.reached_by(completed).await;
        gateway.terminate();
        eventually("the end", || std::future::ready(gateway.has_ended())).await;
        gateway.restart();
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(join_all(clients), restarts);
    let statuses = statuses.into_inner().unwrap();
    assert!(statuses.iter().all(|status| [200, 502, 503].contains(status)), "{statuses:?}");
    let calls = upstream.calls();
    let ids: HashSet<_> = calls.iter().map(|call| &call.headers["idempotency-key"]).collect();
    assert_eq!(ids.len(), calls.len(), "the upstream got a request twice");
    let (used, sent) = (scene.used().await as usize, sent.load(Ordering::Relaxed));
    assert!((upstream.count()..=sent).contains(&used), "{used} charged of {sent}");
}

async fn without_the_gateway_the_response_is_json(kind: ReverseProxy) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let mut scene = Scene::start(kind, &upstream).await;
    scene.gateway.kill9();
    for version in VERSIONS {
        let mut client = scene.connect(version).await;
        let response = client.post_as(&scene.key, CHAT, "{}").await;
        assert!([502, 503].contains(&response.status.as_u16()), "{response:?}");
        assert_eq!(response.header("content-type"), "application/json");
        assert_eq!(response.header("cache-control"), "no-store");
        assert_eq!(response.code(), "gateway_unreachable", "{response:?}");
    }
}

async fn metrics_are_for_this_machine(kind: ReverseProxy) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let scene = Scene::start(kind, &upstream).await;
    for version in VERSIONS {
        for (from, status) in [
            (Ipv4Addr::LOCALHOST, 200),
            // Any other address of the network is rejected.
            (CLIENT, 403),
        ] {
            let mut client = scene.proxy.connect_from(from, version).await;
            for path in ["/metrics", "/%6detrics"] {
                let response = client.get_as(ADMIN_TOKEN, path).await;
                let is_same = response.status == status || (path != "/metrics" && status == 200);
                assert!(is_same, "{from} {path} {response:?}");
            }
        }
    }
}

async fn keys_are_in_no_log_of_the_proxy(kind: ReverseProxy) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let mut scene = Scene::start(kind, &upstream).await;
    let (key, token) = (scene.key.clone(), format!("Bearer {ADMIN_TOKEN}"));
    let paths = [
        format!("/admin/keys/{key}"),
        format!("/v1/files?api_key={key}"),
        format!("//admin/keys/{key}"),
    ];
    let ask = async |scene: &Scene| {
        for version in VERSIONS {
            let mut client = scene.connect(version).await;
            for path in &paths {
                let headers = [("authorization", &*token)];
                client.send(Method::PATCH, path, &headers, "{}").await;
            }
            for name in ["x-api-key", "x-trial-key", "x-admin-token"] {
                client.send(Method::POST, CHAT, &[(name, &*key)], "{}").await;
            }
            let referer = format!("https://{HOST}/?key={key}");
            client.send(Method::GET, "/usage", &[("referer", &*referer)], "").await;
        }
    };
    ask(&scene).await;
    scene.gateway.kill9();
    ask(&scene).await;
    eventually("lines in the log", || async { scene.proxy.logged().contains("127.0.0.2") }).await;
    scene.proxy.stop();
    let logged = scene.proxy.logged();
    let lines = logged.lines().filter(|line| line.contains(&key[..20]));
    assert_eq!(lines.collect::<Vec<_>>(), Vec::<&str>::new());
}

async fn pages_have_links_to_the_public_url(kind: ReverseProxy) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let command = command(&upstream).env("PUBLIC_URL", format!("https://{HOST}"));
    let scene = Scene::with(kind, command, |proxy| proxy).await;
    let mut client = scene.connect(Version::HTTP_2).await;
    let html = [("accept", "text/html,application/xhtml+xml")];
    for path in ["/", "/usage", "/claim", "/admin"] {
        let page = client.send(Method::GET, path, &html, "").await;
        assert_eq!(page.status, 200, "{path} {page:?}");
        assert!(page.header("content-type").starts_with("text/html"), "{path}");
        assert!(page.header("strict-transport-security").starts_with("max-age="), "{path}");
        assert_eq!(page.headers.get_all("strict-transport-security").iter().count(), 1);
    }
    let made = client.post_as(ADMIN_TOKEN, "/admin/keys", "{\"label\":\"Alice\"}").await.json();
    let path = format!("/admin/keys/{}/claim", made["id"].as_str().unwrap());
    let claim = client.post_as(ADMIN_TOKEN, &path, "").await.json();
    let token = claim["url"].as_str().unwrap().strip_prefix(&format!("https://{HOST}/claim#"));
    let open = json!({"token": token.expect("a link"), "open": true}).to_string();
    let given = client.send(Method::POST, "/claim", &[], open).await.json();
    assert_eq!(given["base_url"], format!("https://{HOST}/v1"), "{given}");
    let key = given["key"].as_str().unwrap();
    assert_eq!(client.post_as(key, CHAT, "{}").await.status, 200);
    assert_eq!(client.get_as(key, "/usage").await.json()["used"], 1);
}

async fn plain_http_leads_to_https(kind: ReverseProxy) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let scene = Scene::start(kind, &upstream).await;
    let url = format!("http://{}/usage?x=1", scene.proxy.http);
    let response = Client::http1().send(Method::GET, &url, &[("host", HOST)], "").await;
    assert_eq!(response.status, 308, "{response:?}");
    assert_eq!(response.header("location"), format!("https://{HOST}/usage?x=1"));
}

/// The block of the user's document that creates a key under the public name, word for word.
async fn the_users_commands_work_with_the_public_name(kind: ReverseProxy) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let scene = Scene::start(kind, &upstream).await;
    let document = include_str!("../../docs/trial-key-process.zh.md");
    let (_, command) = document.split_once("# 使用域名访问\n").unwrap();
    let (command, _) = command.split_once("\n\n").unwrap();
    let printed = scene.shell(&command.replace("你的管理员令牌", ADMIN_TOKEN)).await;
    let made: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&made["label"], &made["daily_limit"]), (&json!("生产用户-20250211"), &json!(500)));
}

async fn the_gateways_time_limits_end_a_request_before_the_proxys(kind: ReverseProxy) {
    let upstream = Upstream::holding(|_| json_response("{}")).await;
    let command = command(&upstream).env("UPSTREAM_HEAD_TIMEOUT", "1s");
    // 600 s and 610 s, were they not too long for a test.
    let scene = Scene::with(kind, command, |proxy| proxy.replace("610s", "11s")).await;
    for version in VERSIONS {
        let response = scene.connect(version).await.post_as(&scene.key, CHAT, "{}").await;
        assert_eq!((response.status.as_u16(), &*response.code()), (504, "upstream_timeout"));
    }
}

const GUIDES: [&str; 2] = [
    include_str!("../../docs/guides/behind-a-proxy.md"),
    include_str!("../../docs/guides/behind-a-proxy.zh.md"),
];

/// The first block of this language behind a text of the guide.
fn block<'a>(guide: &'a str, after: &str, language: &str) -> &'a str {
    let (_, rest) = guide.split_once(after).unwrap();
    let (_, rest) = rest.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

/// Word for word, in an `/etc` of its own, where only what reaches out of the machine is a stand-in.
async fn the_guides_commands_install_the_file(kind: ReverseProxy) {
    let (heading, installed) = match kind {
        ReverseProxy::Nginx => ("### nginx\n", "/etc/nginx/conf.d/trial-gateway.conf"),
        ReverseProxy::Caddy => ("### Caddy\n", "/etc/caddy/Caddyfile"),
        ReverseProxy::HaProxy => ("### HAProxy\n", "/etc/haproxy/haproxy.cfg"),
    };
    for guide in GUIDES {
        let dir = TempDir::new().unwrap();
        let script = format!(
            "mount -t tmpfs none {dir}/etc && mkdir {dir}/etc/upper {dir}/etc/work
            mount -t overlay none -o lowerdir=/etc,upperdir={dir}/etc/upper,workdir={dir}/etc/work /etc
            mkdir -p /etc/letsencrypt/live/keys.example.com
            cp {dir}/*.pem /etc/letsencrypt/live/keys.example.com/
            for name in apt-get certbot systemctl; do
                printf '#!/bin/sh\\necho {{}} \"$@\"\\n' | sed s/{{}}/$name/ > {dir}/$name
                chmod +x {dir}/$name
            done
            PATH={dir}:$PATH
            {commands}
            cp {installed} {dir}/installed",
            dir = dir.path().display(),
            commands = block(guide, heading, "sh")
                .replace(&format!("DOMAIN={HOST}"), "DOMAIN=keys.example.com"),
        );
        fs::create_dir(dir.path().join("etc")).unwrap();
        let made = rcgen::generate_simple_self_signed(["keys.example.com".to_owned()]).unwrap();
        fs::write(dir.path().join("fullchain.pem"), made.cert.pem()).unwrap();
        fs::write(dir.path().join("privkey.pem"), made.signing_key.serialize_pem()).unwrap();
        let mut shell = tokio::process::Command::new("unshare");
        let shell = shell.args(["--mount", "bash", "-euo", "pipefail", "-c", &script]);
        let printed = shell.current_dir(env!("CARGO_MANIFEST_DIR")).output().await.unwrap();
        assert!(printed.status.success(), "{script}\n{printed:?}");
        let file = fs::read_to_string(dir.path().join("installed")).unwrap();
        assert!(file == kind.text().replace(HOST, "keys.example.com"), "{file}");
        let said = String::from_utf8(printed.stdout).unwrap()
            + &String::from_utf8(printed.stderr).unwrap();
        assert!(!said.to_lowercase().contains("[warn"), "{said}");
        for part in match kind {
            ReverseProxy::Nginx => {
                ["-d keys.example.com", "test is successful", "systemctl reload-or-restart nginx"]
            }
            ReverseProxy::Caddy => {
                ["install -y caddy", "Valid configuration", "systemctl reload-or-restart caddy"]
            }
            ReverseProxy::HaProxy => {
                ["-d keys.example.com", "certonly", "systemctl reload-or-restart haproxy"]
            }
        } {
            assert!(said.contains(part), "no {part}:\n{said}");
        }
    }
}

async fn the_guides_commands_show_that_it_works(kind: ReverseProxy) {
    for (guide, heading) in GUIDES.into_iter().zip(["## See that it works", "## 检查是否正常"])
    {
        let mut command = GatewayCommand::new().arg("--demo");
        for line in block(guide, "## ", "env").lines() {
            let (name, value) = line.split_once('=').unwrap();
            command = command.env(name, value);
        }
        let scene = Scene::with(kind, command, |proxy| proxy).await;
        let commands = block(guide, heading, "sh");
        assert!(commands.contains("your-strong-admin-token-here"));
        let commands = commands.replace("your-strong-admin-token-here", ADMIN_TOKEN);
        let printed = scene.shell(&commands).await;
        let address = format!("\"ip\": \"{CLIENT}\"");
        let location = format!("location: https://{HOST}/usage");
        let mut rest = &*printed.to_lowercase();
        for part in ["{\"ok\":true", "data: {", "data: [done]", &address, " 308 ", &location] {
            let Some((_, behind)) = rest.split_once(part) else {
                panic!("no {part} where it belongs:\n{printed}");
            };
            rest = behind;
        }
    }
}

/// The others response 502 meanwhile.
#[tokio::test]
#[ignore = "needs haproxy"]
async fn haproxy_waits_for_a_short_restart() {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let command = command(&upstream).env("PORT", free().port().to_string());
    let mut scene = Scene::with(ReverseProxy::HaProxy, command, |proxy| proxy).await;
    for version in VERSIONS {
        let mut client = scene.connect(version).await;
        // A connection to the gateway is kept, and gone when the next request comes.
        assert_eq!(client.post_as(&scene.key, CHAT, "{}").await.status, 200);
        scene.gateway.kill9();
        let proxy = &scene.proxy;
        let waiting = async {
            let mut client = proxy.connect(version).await;
            client.post_as(&scene.key, CHAT, "{\"model\":\"m\"}").await
        };
        let gateway = &mut scene.gateway;
        let restart = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            gateway.restart();
        };
        let (response, ()) = tokio::join!(waiting, restart);
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(upstream.last().body, "{\"model\":\"m\"}");
    }
    assert_eq!((scene.used().await, upstream.count()), (4, 4));
}

#[tokio::test]
#[ignore = "needs haproxy"]
async fn haproxy_takes_a_gateway_out_while_it_drains() {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let command = command(&upstream).env("SHUTDOWN_DELAY", "1h");
    let quick = |proxy: ProxyCommand| proxy.replace("inter 2s", "inter 50ms");
    let mut scene = Scene::with(ReverseProxy::HaProxy, command, quick).await;
    assert_eq!(
        scene.connect(Version::HTTP_2).await.post_as(&scene.key, CHAT, "{}").await.status,
        200
    );
    scene.gateway.terminate();
    eventually("no more requests", || async {
        let response = scene.connect(Version::HTTP_2).await.post_as(&scene.key, CHAT, "{}").await;
        (response.status.as_u16(), &*response.code()) == (503, "gateway_unreachable")
    })
    .await;
    // It was HAProxy that looked away: the gateway still serves.
    let url = scene.gateway.url("/usage");
    assert_eq!(Client::http1().get_as(&scene.key, &url).await.status, 200);
    assert!(!scene.gateway.has_ended());
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_behind_cloudflare_trusts_cloudflare_only() {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    const NETWORK: &str = "173.245.48.0/20";
    for guide in GUIDES {
        let lines = block(guide, "Cloudflare**", "nginx");
        assert!(lines.contains(NETWORK));
        let lines = lines.replace(NETWORK, &CLIENT.to_string());
        let before = "    proxy_http_version 1.1;";
        let behind = |proxy: ProxyCommand| proxy.replace(before, &format!("{lines}\n{before}"));
        let scene = Scene::with(ReverseProxy::Nginx, command(&upstream), behind).await;
        let stranger = Ipv4Addr::new(127, 0, 0, 3);
        let token = format!("Bearer {ADMIN_TOKEN}");
        for (from, known) in [(CLIENT, "203.0.113.5"), (stranger, "127.0.0.3")] {
            let mut client = scene.proxy.connect_from(from, Version::HTTP_2).await;
            let headers = [("authorization", &*token), ("cf-connecting-ip", "203.0.113.5")];
            client.send(Method::POST, "/admin/keys", &headers, "{}").await;
            let trail = scene.gateway.admin(Method::GET, "/admin/audit?limit=1", &Value::Null);
            assert_eq!(trail.await["entries"][0]["ip"], known);
        }
    }
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_serves_what_certbot_writes() {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let root = TempDir::new().unwrap();
    let challenge = root.path().join(".well-known/acme-challenge");
    fs::create_dir_all(&challenge).unwrap();
    fs::write(challenge.join("token"), "proof").unwrap();
    let at = |proxy: ProxyCommand| proxy.replace("/var/www/html", root.path().to_str().unwrap());
    certbot_is_found(&Scene::with(ReverseProxy::Nginx, command(&upstream), at).await).await;
}

#[tokio::test]
#[ignore = "needs haproxy"]
async fn haproxy_forwards_acme_challenges_to_certbot() {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let certbot = Upstream::start(|request| {
        assert_eq!(request.uri(), "/.well-known/acme-challenge/token");
        Response::new(full("proof"))
    })
    .await;
    let at = |proxy: ProxyCommand| proxy.replace("127.0.0.1:8888", &certbot.address().to_string());
    certbot_is_found(&Scene::with(ReverseProxy::HaProxy, command(&upstream), at).await).await;
}

async fn certbot_is_found(scene: &Scene) {
    let url = format!("http://{}/.well-known/acme-challenge/token", scene.proxy.http);
    let response = Client::http1().send(Method::GET, &url, &[("host", HOST)], "").await;
    assert_eq!((response.status.as_u16(), &*response.text()), (200, "proof"));
}
