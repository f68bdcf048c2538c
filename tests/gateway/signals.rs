//! SIGHUP reads token and key files again and never ends the process; SIGTERM lets a load balancer notice
//! the shutdown before the listener closes.

use std::fs;

use crate::common::{
    ADMIN_TOKEN, Client, Gateway, GatewayCommand, Upstream, Wire, chat_json, eventually, full,
    json_response,
};
use http::Response;
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpStream;

const NEW_TOKEN: &str = "another-admin-token-of-the-test";

/// A gateway whose secrets are in files.
fn with_files(upstream: &Upstream) -> GatewayCommand {
    let command = GatewayCommand::bare()
        .env("PORT", "0")
        .env("UPSTREAM_BASE_URL", upstream.base_url())
        .env("ADMIN_TOKEN_FILE", "token")
        .env("UPSTREAM_API_KEY_FILE", "key")
        .env("WORKER_THREADS", "1");
    fs::write(command.dir().join("token"), format!("{ADMIN_TOKEN}\n")).unwrap();
    fs::write(command.dir().join("key"), "sk-old-0123456789\n").unwrap();
    command
}

async fn opens(gateway: &Gateway, token: &str) -> bool {
    Client::http1().get_as(token, &gateway.url("/admin/keys")).await.status == 200
}

async fn hang_up(gateway: &Gateway, says: &str) {
    let said = || gateway.printed().matches(says).count();
    let before = said();
    gateway.signal(Signal::HUP);
    eventually(says, || async { said() > before }).await;
}

#[tokio::test]
async fn sighup_reloads_the_tokens_and_the_key_in_files() {
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let gateway = with_files(&upstream).start();
    let key = gateway.create_key(json!({})).await;
    let chat = || async {
        let url = gateway.url("/v1/chat/completions");
        assert_eq!(Client::http1().post_as(&key, &url, &json!({})).await.status, 200);
        upstream.last().headers["authorization"].to_str().unwrap().to_owned()
    };
    assert_eq!(chat().await, "Bearer sk-old-0123456789");

    fs::write(gateway.dir().join("token"), format!("\n{NEW_TOKEN}\nand-a-third-one-of-them\n"))
        .unwrap();
    fs::write(gateway.dir().join("key"), "sk-new-0123456789\n").unwrap();
    hang_up(&gateway, "UPSTREAM_API_KEY_FILE").await;
    assert!(opens(&gateway, NEW_TOKEN).await && opens(&gateway, "and-a-third-one-of-them").await);
    assert!(!opens(&gateway, ADMIN_TOKEN).await);
    assert_eq!(chat().await, "Bearer sk-new-0123456789");
    for secret in [NEW_TOKEN, "sk-new", "sk-old", ADMIN_TOKEN] {
        assert!(!gateway.printed().contains(secret), "{}", gateway.printed());
    }
}

#[tokio::test]
async fn a_missing_or_invalid_file_keeps_the_old_value() {
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let mut gateway = with_files(&upstream).start();
    let key = gateway.create_key(json!({})).await;
    fs::write(gateway.dir().join("token"), "short\n").unwrap();
    fs::remove_file(gateway.dir().join("key")).unwrap();
    hang_up(&gateway, "UPSTREAM_API_KEY_FILE").await;
    assert!(gateway.printed().contains("ADMIN_TOKEN_FILE"), "{}", gateway.printed());
    assert!(opens(&gateway, ADMIN_TOKEN).await);
    let url = gateway.url("/v1/chat/completions");
    assert_eq!(Client::http1().post_as(&key, &url, &json!({})).await.status, 200);
    assert_eq!(upstream.last().headers["authorization"], "Bearer sk-old-0123456789");

    // An invalid file does not prevent others from being read.
    fs::write(gateway.dir().join("key"), "sk-new-0123456789\n").unwrap();
    hang_up(&gateway, "UPSTREAM_API_KEY_FILE").await;
    assert_eq!(Client::http1().post_as(&key, &url, &json!({})).await.status, 200);
    assert_eq!(upstream.last().headers["authorization"], "Bearer sk-new-0123456789");
    gateway.terminate();
    assert!(gateway.wait().success());
}

#[tokio::test]
async fn a_pipe_is_not_read_again() {
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let mut gateway = with_files(&upstream).start();
    let key = gateway.dir().join("key");
    fs::remove_file(&key).unwrap();
    nix::unistd::mkfifo(&key, nix::sys::stat::Mode::S_IRWXU).unwrap();
    hang_up(&gateway, "UPSTREAM_API_KEY_FILE: expected a regular file").await;
    fs::remove_file(&key).unwrap();
    fs::write(&key, "sk-new-0123456789\n").unwrap();
    hang_up(&gateway, "UPSTREAM_API_KEY_FILE").await;
    gateway.terminate();
    assert!(gateway.wait().success());
}

#[tokio::test]
async fn a_request_in_flight_at_sighup_continues_and_still_hides_its_key() {
    let upstream = Upstream::holding(|request| {
        let echo = request.headers()["authorization"].clone();
        let body = full(echo.as_bytes().to_vec());
        Response::builder().status(400).body(body).unwrap()
    })
    .await;
    let gateway = with_files(&upstream).start();
    let key = gateway.create_key(json!({})).await;
    let mut old = Wire::connect(gateway.address()).await.unwrap();
    old.write(&key, "{}").await.unwrap();
    upstream.reached_by(1).await;
    fs::write(gateway.dir().join("key"), "sk-new-0123456789\n").unwrap();
    hang_up(&gateway, "UPSTREAM_API_KEY_FILE").await;
    let mut new = Wire::connect(gateway.address()).await.unwrap();
    new.write(&key, "{}").await.unwrap();
    upstream.reached_by(2).await;
    upstream.release(2);
    for wire in [&mut old, &mut new] {
        let head = wire.head().await.unwrap();
        let body = wire.body(head).await.unwrap();
        assert_eq!((head.status, &*body), (400, &b"Bearer *****************"[..]));
    }
}

#[tokio::test]
async fn sighup_without_such_files_changes_nothing() {
    let command = GatewayCommand::new().arg("--demo");
    let mut gateway = command.start();
    let key = gateway.create_key(json!({})).await;
    fs::write(gateway.dir().join(".env"), "ADMIN_TOKEN=another-admin-token-of-the-test\n").unwrap();
    for _ in 0..3 {
        hang_up(&gateway, "SIGHUP").await;
    }
    assert!(opens(&gateway, ADMIN_TOKEN).await && !opens(&gateway, NEW_TOKEN).await);
    let url = gateway.url("/v1/chat/completions");
    assert_eq!(Client::http1().post_as(&key, &url, &json!({})).await.status, 200);
    gateway.terminate();
    assert!(gateway.wait().success());
}

/// Returns the status of `/readyz`, or `None` if the gateway accepts no connections.
async fn ready(gateway: &Gateway) -> Option<u16> {
    TcpStream::connect(gateway.address()).await.ok()?;
    Some(Client::http1().get(&gateway.url("/readyz")).await.status.as_u16())
}

#[tokio::test]
async fn the_listener_closes_only_after_readiness_has_been_503_for_the_delay() {
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let mut gateway =
        GatewayCommand::before(upstream.base_url()).env("SHUTDOWN_DELAY", "5s").start();
    let key = gateway.create_key(json!({})).await;
    gateway.terminate();
    eventually("readiness to end", || async { ready(&gateway).await == Some(503) }).await;
    // Requests on new connections are still served.
    let url = gateway.url("/v1/chat/completions");
    assert_eq!(Client::http1().post_as(&key, &url, &json!({})).await.status, 200);
    assert_eq!(Client::http1().get(&gateway.url("/healthz")).await.status, 200);
    eventually("the end", || async { TcpStream::connect(gateway.address()).await.is_err() }).await;
    assert!(gateway.wait().success());
}

#[tokio::test]
async fn responses_close_their_connections_while_the_process_shuts_down() {
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let mut gateway =
        GatewayCommand::before(upstream.base_url()).env("SHUTDOWN_DELAY", "1h").start();
    let key = gateway.create_key(json!({})).await;
    let mut wires = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::connect(gateway.address()).await.unwrap();
        wire.write(&key, "{}").await.unwrap();
        let head = wire.head().await.unwrap();
        wire.body(head).await.unwrap();
        assert!(!head.closes);
        wires.push(wire);
    }
    gateway.terminate();
    eventually("readiness to end", || async { ready(&gateway).await == Some(503) }).await;
    for (wire, key) in wires.iter_mut().zip([&*key, "trial-unknown"]) {
        wire.write(key, "{}").await.unwrap();
        let head = wire.head().await.unwrap();
        wire.body(head).await.unwrap();
        assert!(head.closes && wire.is_closed().await, "{head:?}");
    }
    gateway.terminate();
    assert!(gateway.wait().success());
}

#[tokio::test]
async fn a_second_signal_ends_the_delay_and_a_third_one_aborts_the_responses() {
    let upstream = Upstream::holding(|_| json_response(chat_json().to_string())).await;
    let mut gateway = GatewayCommand::before(upstream.base_url())
        .env("SHUTDOWN_DELAY", "1h")
        .env("SHUTDOWN_GRACE", "1h")
        .start();
    let key = gateway.create_key(json!({})).await;
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    wire.write(&key, "{}").await.unwrap();
    upstream.reached_by(1).await;
    gateway.terminate();
    eventually("readiness to end", || async { ready(&gateway).await == Some(503) }).await;
    gateway.terminate();
    eventually("the listener", || async { TcpStream::connect(gateway.address()).await.is_err() })
        .await;
    // The response in flight may still finish.
    upstream.release(1);
    assert_eq!(wire.head().await.unwrap().status, 200);
    assert!(gateway.wait().success());

    let mut gateway =
        GatewayCommand::before(upstream.base_url()).env("SHUTDOWN_GRACE", "1h").start();
    let key = gateway.create_key(json!({})).await;
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    wire.write(&key, "{}").await.unwrap();
    upstream.reached_by(2).await;
    gateway.signal(Signal::INT);
    eventually("the listener", || async { TcpStream::connect(gateway.address()).await.is_err() })
        .await;
    gateway.terminate();
    assert!(gateway.wait().success());
}

#[tokio::test]
async fn sighup_while_draining_ends_nothing() {
    let upstream = Upstream::holding(|_| json_response(chat_json().to_string())).await;
    let mut gateway =
        GatewayCommand::before(upstream.base_url()).env("SHUTDOWN_DELAY", "200ms").start();
    let key = gateway.create_key(json!({})).await;
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    wire.write(&key, "{}").await.unwrap();
    upstream.reached_by(1).await;
    gateway.terminate();
    gateway.signal(Signal::HUP);
    eventually("the listener", || async { TcpStream::connect(gateway.address()).await.is_err() })
        .await;
    gateway.signal(Signal::HUP);
    upstream.release(1);
    assert_eq!(wire.head().await.unwrap().status, 200);
    assert!(gateway.wait().success());
}
