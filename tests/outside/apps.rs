//! Applications that get a quota for each key, CORS and a timeout: how little it takes, and that it holds.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use rusqlite::Connection;
use tempfile::TempDir;
use tonic::{Code, Request, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const KEY: &str = "trial-key-manual-123";

/// An application as a process, killed at the end.
struct App {
    process: Child,
    address: String,
}

impl App {
    fn start(program: &str, directory: &Path) -> Self {
        let mut command = Command::new(program);
        let mut process = command.current_dir(directory).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(['/', ' ']).next().unwrap().to_owned();
        Self { process, address }
    }

    /// Sends a request and returns the response.
    fn send(&self, method: &str, path: &str, headers: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: app\r\nconnection: close\r\n");
        write!(socket, "{head}{headers}\r\n").unwrap();
        let mut response = String::new();
        socket.read_to_string(&mut response).unwrap();
        response
    }

    /// Sends a request with the key and returns the status.
    fn status(&self, path: &str) -> u16 {
        self.status_of(path, KEY)
    }

    fn status_of(&self, path: &str, key: &str) -> u16 {
        let response = self.send("GET", path, &format!("authorization: Bearer {key}\r\n"));
        response["HTTP/1.1 ".len()..][..3].parse().unwrap()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Puts the key into the database of a running application.
fn insert_key(directory: &TempDir) {
    let insert = "INSERT INTO api_keys (key, label, daily_limit, created_at)
                  VALUES (?1, 'Alice', 3, datetime('now'))";
    Connection::open(directory.path().join("quota.db")).unwrap().execute(insert, [KEY]).unwrap();
}

/// Starts the application in this directory, uses the quota over a `kill -9`, and leaves it exhausted.
fn use_up(program: &str, directory: &TempDir) -> App {
    let app = App::start(program, directory.path());
    insert_key(directory);
    assert_eq!([app.status("/hello"), app.status("/hello")], [200, 200]);
    drop(app);
    let app = App::start(program, directory.path());
    assert_eq!([app.status("/hello"), app.status("/hello")], [200, 429]);
    let preflight = "origin: https://a.example\r\naccess-control-request-method: GET\r\n";
    assert!(app.send("OPTIONS", "/hello", preflight).starts_with("HTTP/1.1 200"));
    let rejected = app.send("GET", "/hello", "origin: https://a.example\r\n");
    assert!(rejected.starts_with("HTTP/1.1 401"), "{rejected}");
    assert!(rejected.contains("access-control-allow-origin: *\r\n"), "{rejected}");
    app
}

/// Returns how many lines `after` has that `before` has not.
fn added_lines(before: &str, after: &str) -> usize {
    let mut before: Vec<&str> = before.lines().collect();
    let is_new = |line: &&str| match before.iter().position(|known| known == line) {
        Some(position) => {
            before.swap_remove(position);
            false
        }
        None => true,
    };
    after.lines().filter(is_new).count()
}

#[test]
fn an_axum_application_gets_a_persistent_quota_in_12_lines() {
    let files = (include_str!("apps/axum_before.rs"), include_str!("apps/axum.rs"));
    let directory = tempfile::tempdir().unwrap();
    assert!(added_lines(files.0, files.1) <= 12);
    let app = use_up(env!("CARGO_BIN_EXE_axum"), &directory);
    // `route_layer`: a path that is no route needs no key and costs nothing.
    assert_eq!(app.status("/nothing"), 404);
}

#[test]
fn a_hyper_service_gets_a_persistent_quota_in_12_lines() {
    let files = (include_str!("apps/hyper_before.rs"), include_str!("apps/hyper.rs"));
    let directory = tempfile::tempdir().unwrap();
    assert!(added_lines(files.0, files.1) <= 12);
    use_up(env!("CARGO_BIN_EXE_hyper"), &directory);
}

#[test]
fn the_front_page_leads_from_an_empty_project_to_a_429() {
    let program = include_str!("apps/front_page.rs");
    let page = include_str!("../../src/lib.rs").lines().filter_map(|line| line.strip_prefix("//!"));
    let page: Vec<&str> = page.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    let page = page.join("\n");
    let (_, code) = page.split_once("```no_run\n").unwrap();
    assert_eq!(code.split_once("```").unwrap().0, program);
    let directory = tempfile::tempdir().unwrap();
    let app = App::start(env!("CARGO_BIN_EXE_front-page"), directory.path());
    let statuses = [(); 3].map(|()| app.status_of("/", "trial-alice-key-123"));
    assert_eq!(statuses, [200, 200, 429]);
}

/// Calls the health service of a gRPC application and returns how the call has ended.
async fn call(app: &App, key: Option<&str>) -> Code {
    let channel = Channel::from_shared(format!("http://{}", app.address)).unwrap();
    let mut client = HealthClient::new(channel.connect().await.unwrap());
    let mut request = Request::new(HealthCheckRequest::default());
    if let Some(key) = key {
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    let (metadata, code) = match client.check(request).await {
        Ok(response) => (response.metadata().clone(), Code::Ok),
        Err(status) => (status.metadata().clone(), status.code()),
    };
    assert_eq!(metadata.get("access-control-allow-origin").unwrap(), "*");
    code
}

#[tokio::test]
async fn a_tonic_server_gets_a_persistent_quota_in_12_lines() {
    let files = (include_str!("apps/tonic_before.rs"), include_str!("apps/tonic.rs"));
    let directory = tempfile::tempdir().unwrap();
    assert!(added_lines(files.0, files.1) <= 12);
    let program = env!("CARGO_BIN_EXE_tonic");
    let app = App::start(program, directory.path());
    insert_key(&directory);
    assert_eq!([call(&app, Some(KEY)).await, call(&app, Some(KEY)).await], [Code::Ok; 2]);
    drop(app);
    let app = App::start(program, directory.path());
    assert_eq!(call(&app, None).await, Code::Unauthenticated);
    assert_eq!(call(&app, Some(KEY)).await, Code::Ok);
    assert_eq!(call(&app, Some(KEY)).await, Code::ResourceExhausted);
}
