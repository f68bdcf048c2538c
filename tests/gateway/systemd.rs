//! systemd: the unit files, a socket that stays open across restarts, and notifications.

use std::{
    collections::BTreeSet,
    fs,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::{fs::symlink, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::common::systemd::{Machine, Unit};
use crate::common::{
    Client, DEADLINE, Gateway, GatewayCommand, Upstream, Wire, chat_json, eventually,
    gateway_binary, json_response, wait_past_midnight,
};
use rusqlite::Connection;
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::Signal,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// A service manager that receives notifications.
struct Manager {
    socket: UnixDatagram,
    _dir: tempfile::TempDir,
}

impl Manager {
    fn of(command: GatewayCommand) -> (Self, GatewayCommand) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let command = command.env("NOTIFY_SOCKET", path.to_str().unwrap());
        (Self { socket, _dir: dir }, command)
    }

    /// Returns the lines of the next message.
    fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message");
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Returns the lines of the next message, which must contain `word`.
    fn expect(&self, word: &str) -> Vec<String> {
        let lines = self.next();
        assert!(lines.iter().any(|line| line == word), "{word}: {lines:?}");
        lines
    }

    fn is_silent(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let nothing = self.socket.recv(&mut [0; 4096]).is_err();
        self.socket.set_nonblocking(false).unwrap();
        nothing
    }
}

/// The value of `name` in a message.
fn value<'a>(lines: &'a [String], name: &str) -> &'a str {
    let found = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {lines:?}"))
}

/// Starts the command with this socket, as a service manager passes it.
fn with_socket(command: GatewayCommand, socket: BorrowedFd<'_>) -> GatewayCommand {
    fcntl_setfd(socket, FdFlags::empty()).unwrap();
    command
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDS_FIRST_FD", socket.as_raw_fd().to_string())
        // HOST and PORT are ignored, even if they are unusable.
        .env("PORT", "1")
}

async fn upstream() -> Upstream {
    Upstream::start(|_| json_response(chat_json().to_string())).await
}

#[tokio::test]
async fn a_service_manager_is_notified_of_readiness_reloads_and_the_end() {
    let upstream = upstream().await;
    let command = GatewayCommand::before(upstream.base_url())
        .env("SHUTDOWN_DELAY", "5s")
        .env("SHUTDOWN_GRACE", "20s");
    let (manager, command) = Manager::of(command);
    let mut gateway = command.start();
    let ready = manager.expect("READY=1");
    assert_eq!(value(&ready, "STATUS"), format!("serving on {}", gateway.address()));
    assert_eq!(Client::http1().get(&gateway.url("/readyz")).await.status, 200);

    gateway.signal(Signal::HUP);
    let reloading = manager.expect("RELOADING=1");
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let since = i128::from(now.tv_sec)
        - value(&reloading, "MONOTONIC_USEC").parse::<i128>().unwrap() / 1_000_000;
    assert!((0..=DEADLINE.as_secs().into()).contains(&since), "{reloading:?}");
    let reloaded = manager.expect("READY=1");
    assert_eq!(value(&reloaded, "STATUS"), value(&ready, "STATUS"));

    gateway.terminate();
    let stopping = manager.expect("STOPPING=1");
    let more: u64 = value(&stopping, "EXTEND_TIMEOUT_USEC").parse().unwrap();
    assert!(more > 25_000_000, "{stopping:?}");
    assert_eq!(value(&stopping, "STATUS"), "shutting down: responses in flight may take 25s");
    gateway.terminate();
    assert!(gateway.wait().success());
    assert!(manager.is_silent());
}

#[tokio::test]
async fn a_reload_that_keeps_an_old_value_reports_it() {
    let command = GatewayCommand::bare().env("PORT", "0").env("ADMIN_TOKEN_FILE", "token");
    fs::write(command.dir().join("token"), "an-admin-token-of-the-test\n").unwrap();
    let (manager, command) = Manager::of(command.arg("--demo"));
    let gateway = command.start();
    manager.expect("READY=1");
    fs::write(command.dir().join("token"), "short").unwrap();
    gateway.signal(Signal::HUP);
    manager.expect("RELOADING=1");
    let reloaded = manager.expect("READY=1");
    let status = value(&reloaded, "STATUS");
    assert!(status.contains("not reloaded: ADMIN_TOKEN_FILE: expected"), "{status}");
}

#[tokio::test]
async fn a_start_is_complete_only_when_the_store_is_open() {
    let upstream = upstream().await;
    let (manager, command) = Manager::of(GatewayCommand::before(upstream.base_url()));
    let mut gateway = command.start();
    manager.expect("READY=1");
    gateway.kill9();
    let other = Connection::open(command.dir().join("quota.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let gateway = command.start();
    let waiting = manager.next();
    assert!(value(&waiting, "STATUS").starts_with("waiting for the database: "), "{waiting:?}");
    assert_eq!(Client::http1().get(&gateway.url("/healthz")).await.status, 200);
    assert!(manager.is_silent());
    drop(other);
    manager.expect("READY=1");
    assert_eq!(Client::http1().get(&gateway.url("/readyz")).await.status, 200);
}

#[tokio::test]
async fn a_healthy_gateway_feeds_the_watchdog() {
    let (manager, command) = Manager::of(GatewayCommand::new().arg("--demo"));
    let gateway = command.clone().env("WATCHDOG_USEC", "90000").start();
    let mut pings = 0;
    while pings < 5 {
        pings += usize::from(manager.next() == ["WATCHDOG=1"]);
    }
    drop(gateway);
    // A watchdog for another process is ignored.
    let gateway = command.env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1").start();
    while manager.next()[0] != "READY=1" {}
    gateway.signal(Signal::HUP);
    manager.expect("RELOADING=1");
}

#[tokio::test]
async fn a_service_manager_that_does_not_read_delays_nothing() {
    let (manager, command) = Manager::of(GatewayCommand::new().arg("--demo"));
    let path = manager.socket.local_addr().unwrap().as_pathname().unwrap().to_owned();
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"X=1", &path).is_ok() {}
    let mut gateway = command.start();
    let ready = || async { Client::http1().get(&gateway.url("/readyz")).await.status == 200 };
    eventually("readiness", ready).await;
    gateway.signal(Signal::HUP);
    gateway.create_key(json!({})).await;
    gateway.terminate();
    assert!(gateway.wait().success());
}

#[tokio::test]
async fn an_inherited_socket_replaces_host_and_port() {
    let upstream = upstream().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway =
        with_socket(GatewayCommand::before(upstream.base_url()), listener.as_fd()).start();
    assert_eq!(gateway.address(), listener.local_addr().unwrap());
    let printed = gateway.printed();
    eventually("its source", || async {
        gateway.printed().contains("the socket of LISTEN_FDS; HOST and PORT are not used")
    })
    .await;
    assert!(!printed.contains("warning"), "{printed}");
    assert_eq!(Client::http1().get(&gateway.url("/readyz")).await.status, 200);
}

#[test]
fn anything_but_a_single_tcp_listener_is_rejected() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let stream = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    let file = tempfile::tempfile().unwrap();
    for (socket, problem) in [
        (udp.as_fd(), "is not a valid tcp socket"),
        (stream.as_fd(), "it does not listen"),
        (file.as_fd(), "is not a socket"),
    ] {
        rejected(&with_socket(GatewayCommand::new(), socket), problem);
    }
    rejected(&GatewayCommand::new().env("LISTEN_FDS", "2"), "got 2 sockets");
    // Sockets for another process are ignored.
    let (udp, id) = (udp.as_fd(), std::process::id().to_string());
    with_socket(GatewayCommand::new(), udp).env("LISTEN_PID", id).env("PORT", "0").start();
}

fn rejected(command: &GatewayCommand, problem: &str) {
    let output = command.output();
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(printed.starts_with("LISTEN_FDS: expected one listening TCP socket"), "{printed}");
    assert!(printed.contains(problem) && printed.lines().count() == 1, "{printed}");
}

/// A gateway on a socket that the test holds, as systemd does.
struct Scene {
    command: GatewayCommand,
    listener: TcpListener,
    gateway: Gateway,
    key: String,
    _upstream: Upstream,
}

impl Scene {
    async fn start() -> Self {
        let upstream = upstream().await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let command = GatewayCommand::before(upstream.base_url());
        let command = with_socket(command.env("RUST_LOG", "info"), listener.as_fd());
        let gateway = command.start();
        let key = gateway.create_key(json!({"daily_limit": 0})).await;
        Self { command, listener, gateway, key, _upstream: upstream }
    }

    /// As `systemctl restart` does.
    async fn restart(&mut self) {
        self.gateway.terminate();
        assert!(self.gateway.wait().success());
        self.gateway = self.command.start();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restart_loses_no_request() {
    const CLIENTS: usize = 4;
    const RESTARTS: usize = 4;
    let mut scene = Scene::start().await;
    let address = scene.listener.local_addr().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let completed = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (key, is_over, completed) = (scene.key.clone(), is_over.clone(), completed.clone());
        clients.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                // Each on a new connection.
                let mut wire = Wire::connect(address).await.expect("a connection");
                tokio::task::yield_now().await;
                wire.write(&key, "{}").await.expect("a request");
                let head = wire.head().await.expect("a response");
                assert_eq!(head.status, 200);
                completed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for restart in 1..=RESTARTS {
        let before = completed.load(Ordering::Relaxed);
        let more = || async { completed.load(Ordering::Relaxed) >= before + 50 };
        eventually("50 responses", more).await;
        println!("restart {restart} after {} responses", completed.load(Ordering::Relaxed));
        scene.restart().await;
    }
    let before = completed.load(Ordering::Relaxed);
    eventually("more", || async { completed.load(Ordering::Relaxed) >= before + 50 }).await;
    is_over.store(true, Ordering::Relaxed);
    clients.join_all().await;
    let completed = completed.load(Ordering::Relaxed);
    assert!(completed >= 200);
    assert_eq!(scene.gateway.used(&scene.key).await, completed as u64);
}

/// Waits until it accepts no more connections, according to its log: the socket stays open.
async fn listener_closed(gateway: &Gateway) {
    eventually("its end", || async { gateway.printed().contains("listener closed") }).await;
}

#[tokio::test]
async fn a_connection_that_was_accepted_before_the_end_gets_its_first_response() {
    let scene = Scene::start().await;
    let mut wires = Vec::new();
    for begun in ["", "POST /v1/cha"] {
        let mut wire = Wire::connect(scene.gateway.address()).await.unwrap();
        wire.send(begun).await.unwrap();
        wires.push((wire, begun));
    }
    // Connections are accepted in order, so the previous ones are, too.
    let mut last = Wire::connect(scene.gateway.address()).await.unwrap();
    assert_eq!(last.post(&scene.key, "{}").await.unwrap().0, 200);
    scene.gateway.terminate();
    listener_closed(&scene.gateway).await;
    for (mut wire, begun) in wires {
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {}\r\n\
             Content-Length: 2\r\n\r\n{{}}",
            scene.key
        );
        wire.send(&request[begun.len()..]).await.unwrap();
        let head = wire.head().await.unwrap_or_else(|error| panic!("{begun:?}: {error}"));
        assert_eq!((head.status, head.closes), (200, true), "{begun:?}");
    }
}

/// Returns the length of the accept queue of this port.
fn waiting(port: &str) -> Option<u32> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields[3] == "0A" && fields[1].ends_with(port);
        let (_, waiting) = fields[4].split_once(':').filter(|_| is_it)?;
        u32::from_str_radix(waiting, 16).ok()
    })
}

#[tokio::test]
async fn a_connection_that_is_pending_at_the_shutdown_is_served() {
    let upstream = Upstream::holding(|_| json_response(chat_json().to_string())).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let command = GatewayCommand::before(upstream.base_url())
        .env("RUST_LOG", "info")
        .env("MAX_CONNECTIONS", "1");
    let mut gateway = with_socket(command, listener.as_fd()).start();
    let key = gateway.create_key(json!({})).await;
    let mut first = Wire::connect(gateway.address()).await.unwrap();
    first.write(&key, "{}").await.unwrap();
    upstream.reached_by(1).await;
    let mut second = Wire::connect(gateway.address()).await.unwrap();
    second.write(&key, "{}").await.unwrap();
    let port = format!(":{:04X}", gateway.address().port());
    eventually("it to be accepted", || async { waiting(&port) == Some(0) }).await;
    gateway.terminate();
    listener_closed(&gateway).await;
    upstream.release(2);
    for wire in [&mut first, &mut second] {
        assert_eq!(wire.head().await.unwrap().status, 200);
    }
    assert!(gateway.wait().success());
}

/// A file of `docs/deploy`.
fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy").join(name)
}

fn unit(name: &str) -> Unit {
    Unit::parse(&fs::read_to_string(deployed("systemd").join(name)).unwrap())
}

/// Returns the blocks of a document that this test runs.
fn blocks(document: &str) -> Vec<String> {
    let text = fs::read_to_string(deployed(document)).unwrap();
    let mut blocks = text.split("<!-- docs: run by tests/gateway/systemd.rs -->\n```sh\n");
    blocks.next();
    blocks.map(|block| block.split_once("```\n").unwrap().0.to_owned()).collect()
}

/// Runs the page's commands on a machine whose `systemctl` runs the units.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs bash, curl and openssl"]
async fn the_guide_leads_from_a_checkout_to_a_gateway_and_back() {
    wait_past_midnight(2 * DEADLINE);
    let documents = [blocks("systemd.md"), blocks("systemd.zh.md")];
    assert_eq!(documents[0], documents[1], "the two pages have other commands");
    let blocks = &documents[0];
    assert_eq!(blocks.len(), 14);
    let upstream = Upstream::start(|request| {
        let is_list = request.uri().path().ends_with("/models");
        let response = if is_list { json!({"object": "list", "data": []}) } else { chat_json() };
        json_response(response.to_string())
    })
    .await;
    let mut machine = Machine::new();
    let checkout = tempfile::tempdir().unwrap();
    symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"), checkout.path().join("docs"))
        .unwrap();
    let build = format!(
        "[ \"$*\" = 'build --profile dist --locked --example gateway' ]\n\
         mkdir -p target/dist/examples; cp {} target/dist/examples/gateway",
        gateway_binary().display()
    );
    machine.script("cargo", &build);
    let to_upstream =
        |block: &String| block.replace("https://api.deepseek.com/v1", &upstream.base_url());
    let blocks: Vec<String> = blocks.iter().map(to_upstream).collect();
    let mut follow = |blocks: &[String]| machine.run(&blocks.concat(), checkout.path());

    let printed = follow(&blocks[..5]);
    assert!(printed.contains("Active: active (running)\n{\"ok\":true}"), "{printed}");
    let (_, record) = printed.rsplit_once("{\"ok\":true}").unwrap();
    let record: Value = serde_json::from_str(record.trim()).unwrap();
    let (root, address) = (machine.root().to_owned(), machine.address());
    let used = async || {
        let url = format!("http://{address}/usage");
        Client::http1().get_as(record["key"].as_str().unwrap(), &url).await.json()["used"].clone()
    };
    let chat = async || {
        let url = format!("http://{address}/v1/chat/completions");
        let response =
            Client::http1().post_as(record["key"].as_str().unwrap(), &url, &json!({})).await;
        assert_eq!(response.status, 200, "{response:?}");
    };
    chat().await;
    assert_eq!(upstream.last().headers["authorization"], "Bearer sk-your-key");

    let mut follow = |blocks: &[String]| machine.run(&blocks.concat(), checkout.path());
    let printed = follow(&blocks[5..6]);
    assert!(printed.contains("a gateway is running on"), "{printed}");
    assert!(printed.contains("ok       upstream   "), "{printed}");
    assert!(printed.contains("Asia/Shanghai") && printed.contains("\n0 failures"), "{printed}");

    let printed = follow(&blocks[6..10]);
    assert!(printed.contains("listening on  http://"), "{printed}");
    assert!(printed.contains("HOST and PORT are not used"), "{printed}");
    assert!(printed.lines().last().unwrap().ends_with(".db"), "{printed}");
    chat().await;
    assert_eq!(used().await, 2);
    follow(&blocks[10..11]);
    assert_eq!(used().await, 1, "as at the backup");
    chat().await;

    let old = fs::read_to_string(root.join("etc/quota-proxy/admin_token")).unwrap();
    let new = follow(&blocks[11..12]);
    for token in [old.trim(), new.trim()] {
        let keys = Client::http1().get_as(token, &format!("http://{address}/admin/keys")).await;
        assert_eq!(keys.json()["keys"][0]["used_today"], 2, "{keys:?}");
    }

    follow(&blocks[12..13]);
    assert!(root.join("var/lib/quota-proxy/quota.db").exists());
    follow(&blocks[13..]);
    for path in ["etc/quota-proxy", "usr/local/bin/gateway", "var/lib/quota-proxy"] {
        assert!(!root.join(path).exists(), "{path}");
    }
    assert_eq!(fs::read_dir(root.join("etc/systemd/system")).unwrap().count(), 0);
}

#[test]
fn the_units_name_existing_settings_and_each_other() {
    let help = Command::new(gateway_binary()).arg("--help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    for file in ["quota-proxy.service", "quota-proxy-check.service", "quota-proxy-backup.service"] {
        for variable in unit(file).all("Service", "Environment") {
            let (name, _) = variable.split_once('=').unwrap();
            assert!(help.contains(&format!("[env: {name}]")), "{file}: {name}");
        }
    }
    let service = unit("quota-proxy.service");
    assert_eq!(service.one("Unit", "Requires"), "quota-proxy.socket");
    assert_eq!(service.one("Install", "Also"), "quota-proxy.socket");
    // The check finds what the gateway would: all its settings but those of its life.
    let check = unit("quota-proxy-check.service");
    for setting in ["EnvironmentFile", "Environment", "LoadCredential", "LimitNOFILE", "User"] {
        assert_eq!(service.all("Service", setting), check.all("Service", setting), "{setting}");
    }
    let backup = unit("quota-proxy-backup.service");
    for setting in ["User", "DynamicUser", "WorkingDirectory", "UMask"] {
        let both = [&service, &backup].map(|unit| unit.one("Service", setting));
        assert_eq!(both[0], both[1], "{setting}: they share a database");
    }
    // Longer than responses may take by default.
    let grace = help.split("finish after that [default: ").nth(1).unwrap();
    let seconds = |text: &str| -> u64 { text.split('s').next().unwrap().parse().unwrap() };
    assert!(seconds(service.one("Service", "TimeoutStopSec")) > seconds(grace), "{grace}");
}

#[test]
#[ignore = "needs systemd"]
fn systemd_accepts_the_units_without_warnings_and_finds_them_safe() {
    let dir = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for file in fs::read_dir(deployed("systemd")).unwrap() {
        let file = file.unwrap().path();
        let text = fs::read_to_string(&file).unwrap();
        let text = text.replace("/usr/local/bin/gateway", gateway_binary().to_str().unwrap());
        let unit = dir.path().join(file.file_name().unwrap());
        fs::write(&unit, text).unwrap();
        units.push(unit);
    }
    assert_eq!(units.len(), 5);
    let analyze = |arguments: &[&str], units: &[PathBuf]| {
        let output = Command::new("systemd-analyze").args(arguments).args(units).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(printed).unwrap())
    };
    assert_eq!(analyze(&["verify"], &units), (true, String::new()));
    for unit in units.iter().filter(|unit| unit.extension().unwrap() == "service") {
        let unit = std::slice::from_ref(unit);
        let (is_below, printed) =
            analyze(&["security", "--offline=true", "--threshold=20", "--no-pager"], unit);
        let score = printed.lines().last().unwrap();
        assert!(is_below, "{score}");
        // As the page says.
        let level = score.split_whitespace().rev().nth(2).unwrap();
        let page = fs::read_to_string(deployed("systemd.md")).unwrap();
        assert!(page.contains(level), "{score}");
    }
}

/// All system calls of the gateway are among those that the unit allows.
#[test]
#[ignore = "needs systemd and strace"]
fn the_unit_allows_every_system_call_that_the_gateway_makes() {
    let service = unit("quota-proxy.service");
    let mut allowed = BTreeSet::new();
    for filter in service.all("Service", "SystemCallFilter") {
        let (sets, is_allowed) = match filter.strip_prefix('~') {
            Some(sets) => (sets, false),
            None => (filter, true),
        };
        for set in sets.split(' ') {
            for call in system_calls(set) {
                match is_allowed {
                    true => allowed.insert(call),
                    false => allowed.remove(&call),
                };
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let (manager, command) = Manager::of(GatewayCommand::new().arg("--demo"));
    let strace = ["strace", "-D", "-f", "-qq", "-o", trace.to_str().unwrap(), "--"];
    let mut gateway = command.under(&strace).start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let key = gateway.create_key(json!({})).await;
        let url = gateway.url("/v1/chat/completions");
        let chat = json!({"messages": [{"role": "user", "content": "x"}]});
        assert_eq!(Client::http1().post_as(&key, &url, &chat).await.status, 200);
        let backup = gateway.url("/admin/backup");
        assert_eq!(
            Client::http1().post_as(crate::common::ADMIN_TOKEN, &backup, &json!({})).await.status,
            200
        );
        let metrics = gateway.url("/metrics");
        assert_eq!(Client::http1().get_as(crate::common::ADMIN_TOKEN, &metrics).await.status, 200);
    });
    manager.expect("READY=1");
    gateway.terminate();
    assert!(gateway.wait().success());
    let trace = fs::read_to_string(trace).unwrap();
    let calls: BTreeSet<&str> = trace
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('(').map(|(call, _)| call))
        .filter(|call| {
            call.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        })
        .collect();
    assert!(calls.contains("accept4") && calls.contains("sendto"), "{calls:?}");
    // SQLite gives files away only as root, as whom the test runs.
    let spared = ["fchown"];
    let forbidden: Vec<_> =
        calls.iter().filter(|call| !allowed.contains(**call) && !spared.contains(call)).collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
}

/// Returns the system calls of a set, including nested sets.
fn system_calls(set: &str) -> Vec<String> {
    let output = Command::new("systemd-analyze").args(["syscall-filter", set]).output().unwrap();
    assert!(output.status.success(), "{set}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().skip(1).map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .flat_map(|line| match line.starts_with('@') {
            true => system_calls(line),
            false => vec![line.to_owned()],
        })
        .collect()
}

#[tokio::test]
#[ignore = "needs systemd"]
async fn systemd_passes_its_socket() {
    let upstream = upstream().await;
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], crate::common::free_port()));
    let command = GatewayCommand::before(upstream.base_url());
    let address = free.to_string();
    let mut activate = Command::new("systemd-socket-activate");
    activate.args(["-l", &address, "-E", "PORT=1"]).current_dir(command.dir()).env_clear();
    let url = upstream.base_url();
    for (name, value) in [
        ("ADMIN_TOKEN", crate::common::ADMIN_TOKEN),
        ("UPSTREAM_BASE_URL", &url),
        ("PATH", "/usr/bin:/bin"),
        ("HOST", "192.0.2.1"),
    ] {
        activate.env(name, value).arg(format!("--setenv={name}"));
    }
    activate.arg(gateway_binary());
    let mut activated = activate.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("it to listen", || async { TcpStream::connect(free).is_ok() }).await;
    let healthy = Client::http1().get(&format!("http://{free}/healthz")).await;
    activated.kill().unwrap();
    activated.wait().unwrap();
    assert_eq!(healthy.status, 200);
}
