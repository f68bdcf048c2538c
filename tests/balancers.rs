//! Balancers in front of the gateway, as their manuals configure them.

mod common;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use bytes::Bytes;
use common::{
    Client, Gateway, GatewayCommand, Upstream, Wire, eventually, full, json_answer, streaming,
};
use http::{Method, Response};
use http_body_util::BodyExt;
use serde_json::json;
use tempfile::TempDir;

/// A program that runs in a directory of its own, until it is dropped.
struct Program {
    child: Child,
    _dir: TempDir,
}

impl Program {
    /// Starts it with `configuration` in a file behind these arguments.
    fn start(command: &[&str], configuration: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("configuration");
        fs::write(&file, configuration.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let child = Command::new(command[0])
            .args(&command[1..])
            .arg(&file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command[0]));
        Self { child, _dir: dir }
    }

    fn nginx(listen: SocketAddr, gateway: SocketAddr, upstream: &str, location: &str) -> Self {
        let configuration = format!(
            "daemon off; master_process off; error_log DIR/error.log; pid DIR/pid; events {{}}
            http {{
                access_log off;
                client_body_temp_path DIR/body; proxy_temp_path DIR/proxy;
                fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
                upstream gateway {{ server {gateway}; {upstream} }}
                server {{
                    listen {listen};
                    location / {{ proxy_pass http://gateway; {location} }}
                }}
            }}"
        );
        Self::start(&["nginx", "-c"], &configuration)
    }

    fn haproxy(listen: SocketAddr, stats: SocketAddr, gateway: SocketAddr) -> Self {
        let configuration = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             frontend public\n bind {listen}\n default_backend gateways\n\
             backend gateways\n option httpchk GET /healthz\n\
             server first {gateway} check inter 50ms fall 1\n\
             listen statistics\n bind {stats}\n stats enable\n stats uri /\n"
        );
        Self::start(&["haproxy", "-f"], &configuration)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that nobody listens on.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn listens(address: SocketAddr) {
    eventually("the balancer listens", || async { Wire::connect(address).await.is_ok() }).await;
}

async fn gateway(upstream: &Upstream, limit: u32) -> (Gateway, String) {
    let gateway = GatewayCommand::at_noon(upstream.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": limit})).await;
    (gateway, key)
}

#[tokio::test]
#[ignore = "needs haproxy"]
async fn haproxy_finds_the_gateway_healthy() {
    let upstream = Upstream::start(|_| json_answer("{}")).await;
    let (mut gateway, key) = gateway(&upstream, 0).await;
    let (listen, stats) = (free(), free());
    let _haproxy = Program::haproxy(listen, stats, gateway.address());
    listens(stats).await;
    let state = async || Client::http1().get(&format!("http://{stats}/;csv")).await.text();
    eventually("a good check", || async { state().await.contains("L7OK") }).await;
    let url = format!("http://{listen}/v1/chat/completions");
    let answer = Client::http1().post_as(&key, &url, &json!({"model": "m"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
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
    let _nginx = Program::nginx(listen, gateway.address(), "", "");
    listens(listen).await;
    let url = format!("http://{listen}/v1/chat/completions");
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", &*authorization)];
    sender.send(Ok(Bytes::from_static(b"data: 1\n\n"))).unwrap();
    let mut response =
        Client::http1().open(Method::POST, &url, &headers, "{}").await.unwrap().into_body();
    // The upstream does not go on before the first event has come.
    let first = tokio::time::timeout(common::DEADLINE, response.frame()).await.expect("an event");
    assert_eq!(first.unwrap().unwrap().into_data().unwrap(), "data: 1\n\n");
    drop(sender);
    assert!(response.frame().await.is_none());
}

/// nginx keeps its connections to the gateway, and answers 502 where one of them closes without a word.
#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_loses_no_rejection_on_kept_connections() {
    let upstream = Upstream::start(|_| json_answer("{}")).await;
    let (gateway, key) = gateway(&upstream, 1).await;
    let listen = free();
    let kept = "proxy_http_version 1.1; proxy_set_header Connection \"\"; \
                proxy_request_buffering off;";
    let _nginx = Program::nginx(listen, gateway.address(), "keepalive 4;", kept);
    listens(listen).await;
    let (client, url) = (Client::http1(), format!("http://{listen}/v1/x"));
    let mut statuses = Vec::new();
    for _ in 0..200 {
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", &*authorization)];
        let answer = client.send(Method::POST, &url, &headers, vec![b'x'; 100_000]).await;
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses, [vec![200], vec![429; 199]].concat());
}

#[tokio::test]
async fn event_streams_are_not_to_be_buffered() {
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
        let answer = Client::http1().get_as(&key, &gateway.url("/v1/x")).await;
        assert_eq!(answer.header("x-accel-buffering"), expected, "{content_type}");
    }
}
