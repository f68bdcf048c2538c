//! Secrets stay where they belong: in no response but the one that issues a key, in no line of the most
//! talkative log, in no file.

use std::{fs, net::SocketAddr};

use crate::common::{GatewayCommand, eventually};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

const SPONSOR: &str = "sk-canary-sponsor-5b1f0c9d";
const ADMIN: &str = "canary-admin-token-77e2ab01";

/// An upstream that repeats the credential wherever it can, as the request's body says.
struct Parrot {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Parrot {
    #[expect(clippy::disallowed_methods, reason = "one task for the server")]
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(repeat(socket));
            }
        });
        Self { address, server }
    }
}

impl Drop for Parrot {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn repeat(mut socket: TcpStream) {
    let mut request = Vec::new();
    let is_whole = |request: &[u8]| {
        let text = String::from_utf8_lossy(request);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        let has_body = head.contains("content-length: ") && !head.contains("content-length: 0");
        !head.is_empty() && (!has_body || body.ends_with('!'))
    };
    while !is_whole(&request) {
        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let request = String::from_utf8(request).unwrap();
    let credential = request.lines().find(|line| line.starts_with("authorization:")).unwrap();
    let (_, wish) = request.trim_end_matches('!').rsplit_once("\r\n").unwrap();
    let wish = if wish.is_empty() { "404" } else { wish };
    let body = format!("{{\"error\":\"{credential}\"}}");
    let response = |status: &str, headers: &str| {
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
    };
    let response = match wish {
        "nonsense" => format!("{credential}\r\n\r\n"),
        "reason" => response(&format!("400 {credential}"), ""),
        "header" => response("400 Bad", &format!("x-debug: {credential}\r\n")),
        "cookie" => response("200 OK", &format!("set-cookie: {credential}\r\n"))
            .replace(&body, &"x".repeat(body.len())),
        "redirect" => response("302 Found", &format!("location: http://x/?{SPONSOR}\r\n")),
        "broken" => format!("HTTP/1.1 500 No\r\ncontent-length: 9999\r\n\r\n{body}"),
        status => response(&format!("{status} Status"), "content-type: application/json\r\n"),
    };
    let _ = socket.write_all(response.as_bytes()).await;
    let _ = socket.shutdown().await;
}

/// Sends these bytes and reads until the gateway closes.
async fn ask(gateway: SocketAddr, request: &str) -> Vec<u8> {
    let mut socket = TcpStream::connect(gateway).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    if !request.contains("\r\n\r\n") {
        socket.shutdown().await.unwrap();
    }
    let mut response = Vec::new();
    // A rejected request may end in a reset.
    let _ = socket.read_to_end(&mut response).await;
    response
}

fn request(line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{line} HTTP/1.1\r\nhost: gateway\r\n{headers}connection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Everything that holders, operators and strangers may try with a key.
fn attempts(key: &str) -> Vec<String> {
    let holder = format!("authorization: Bearer {key}\r\n");
    let admin = format!("authorization: Bearer {ADMIN}\r\n");
    let wishes = [
        "200", "400", "401", "402", "403", "404", "422", "429", "500", "503", "101", "nonsense",
        "reason", "header", "cookie", "redirect", "broken",
    ];
    // A 200 passes untouched, so the parrot must not repeat anything there.
    let passing = wishes.iter().filter(|wish| **wish != "200");
    let mut all: Vec<String> = passing
        .map(|wish| request("POST /v1/chat/completions", &holder, &format!("\r\n{wish}!")))
        .collect();
    let lines = |line: &str, headers: &str| request(line, headers, "");
    all.extend([
        lines("GET /usage", &holder),
        lines("GET /usage", "accept: text/html\r\n"),
        lines(&format!("GET /v1/models?api_key={key}"), ""),
        lines(&format!("GET /v1/{key}/x"), &holder),
        lines(&format!("GET /{key}"), ""),
        lines("GET /v1/../admin", &holder),
        lines("TRACE /v1/x", &holder),
        lines("GET /v1/x", &format!("{holder}x-api-key: other\r\n")),
        lines("GET /v1/x", &format!("cookie: {key}\r\n{holder}upgrade: websocket\r\n")),
        lines("GET /v1/x", &format!("{holder}{holder}")),
        lines("POST /v1/x", &format!("{holder}transfer-encoding: chunked\r\n")),
        lines("GET /v1/x", &format!("{holder}bad header {key}: x\r\n")),
        lines("GET /v1/x", &format!("{holder}x-request-id: {key}\r\n")),
        lines("GET /v1/x", &format!("x-request-id: {key}\r\n")),
        request(
            "POST /v1/chat/completions",
            &holder,
            &format!("{{\"model\": \"{key}\", \"\r\n404!"),
        ),
        lines("GET /admin", ""),
        lines("GET /admin/keys", &admin),
        lines(&format!("GET /admin/keys/{key}"), &admin),
        lines(&format!("GET /admin/keys?search={key}"), &admin),
        lines("GET /admin/usage", &admin),
        lines("GET /admin/audit", &admin),
        lines("GET /admin/keys", &format!("authorization: Bearer {ADMIN}x\r\n")),
        lines("GET /admin/keys", &holder),
        lines("GET /metrics", &admin),
        lines("GET /metrics", &holder),
        lines("GET /readyz", ""),
        request("POST /admin/reset-usage", &admin, &json!({"key": key}).to_string()),
        request("POST /admin/reset-usage", &admin, &format!("{{\"key\": \"{key}")),
        request("POST /admin/keys", &admin, &json!({"label": "x", "key": key}).to_string()),
        request("POST /admin/keys", &admin, &json!({"daily_limit": key}).to_string()),
        lines(&format!("DELETE /admin/keys/{key}"), &admin),
        lines("GET /usage", &holder),
        format!("GET /v1/{key} HTTP/1.1\r\nhost: gateway\r\n"),
        format!("{key} {ADMIN}\r\n\r\n"),
    ]);
    all
}

fn has(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_gets_into_a_response_a_log_or_a_file() {
    let upstream = Parrot::start().await;
    let mut gateway = GatewayCommand::new()
        .env("UPSTREAM_BASE_URL", format!("http://{}/v1", upstream.address))
        .env("UPSTREAM_API_KEY", SPONSOR)
        .env("ADMIN_TOKEN", ADMIN)
        .env("RUST_LOG", "trace")
        .env("USAGE_RETENTION_DAYS", "1")
        .start();
    let create = format!("authorization: Bearer {ADMIN}\r\n");
    let created = request("POST /admin/keys", &create, &json!({"label": "canary"}).to_string());
    let created = String::from_utf8(ask(gateway.address(), &created).await).unwrap();
    let (_, body) = created.split_once("\r\n\r\n").unwrap();
    let key = serde_json::from_str::<serde_json::Value>(body).unwrap()["key"].clone();
    let key = key.as_str().unwrap();
    let secrets = [("sponsor's key", SPONSOR), ("admin token", ADMIN), ("trial key", key)];
    assert!(!has(created.as_bytes(), SPONSOR) && !has(created.as_bytes(), ADMIN));

    for attempt in attempts(key) {
        let response = ask(gateway.address(), &attempt).await;
        for (name, secret) in secrets {
            let reported = String::from_utf8_lossy(&response);
            assert!(
                !has(&response, secret),
                "the {name} in the response to\n{attempt}\n\n{reported}"
            );
        }
    }
    eventually("the log is written", || async { gateway.printed().contains("/readyz") }).await;
    gateway.terminate();
    gateway.wait();
    for line in gateway.printed().lines() {
        for (name, secret) in secrets {
            assert!(!line.contains(secret), "the {name} in the log: {line}");
        }
    }
    for file in fs::read_dir(gateway.dir()).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        for (name, secret) in secrets {
            assert!(!has(&bytes, secret), "the {name} in {}", path.display());
        }
    }
}
