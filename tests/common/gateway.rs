use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Client, DEADLINE, zone::noon_zone};

/// The admin token of every gateway that is started with no other.
pub(crate) const ADMIN_TOKEN: &str = "test-admin-token-0123456789";

/// Starts gateways in a directory of its own, with no settings but these.
#[derive(Clone)]
pub(crate) struct GatewayCommand {
    dir: Arc<TempDir>,
    env: Vec<(String, String)>,
    args: Vec<String>,
    /// The program that runs it, and its arguments, if it is not run directly.
    under: Vec<String>,
    /// Where its output goes, if this process does not read it.
    stdout: Option<Arc<OwnedFd>>,
    stderr: Option<Arc<OwnedFd>>,
}

/// A running gateway. It is killed on drop.
pub(crate) struct Gateway {
    command: GatewayCommand,
    child: Child,
    address: SocketAddr,
    output: Arc<Mutex<String>>,
}

impl GatewayCommand {
    /// Port 0, [`ADMIN_TOKEN`], threads among which requests race on any machine, and a zone in which no day
    /// turns while a test runs.
    pub(crate) fn new() -> Self {
        Self::bare()
            .env("PORT", "0")
            .env("ADMIN_TOKEN", ADMIN_TOKEN)
            .env("WORKER_THREADS", "4")
            .env("QUOTA_TIMEZONE", noon_zone())
    }

    /// The same in front of this upstream, with warnings only in its log.
    pub(crate) fn before(upstream_base_url: impl Into<String>) -> Self {
        Self::new()
            .env("UPSTREAM_BASE_URL", upstream_base_url)
            .env("UPSTREAM_API_KEY", "sk-sponsor-secret")
            .env("RUST_LOG", "warn")
    }

    /// No setting at all.
    pub(crate) fn bare() -> Self {
        Self {
            dir: Arc::new(TempDir::new().unwrap()),
            env: Vec::new(),
            args: Vec::new(),
            under: Vec::new(),
            stdout: None,
            stderr: None,
        }
    }

    /// The same with a variable set; one that is set already gets the new value.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.retain(|(set, _)| set != name);
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// The same with one more argument.
    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// The same, run by another program that ends by becoming the gateway.
    pub(crate) fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The same with its standard output going to this file. Not for `--demo`, which listens twice.
    pub(crate) fn stdout(mut self, file: impl Into<OwnedFd>) -> Self {
        self.stdout = Some(Arc::new(file.into()));
        self
    }

    /// The same with its standard error going to this file.
    pub(crate) fn stderr(mut self, file: impl Into<OwnedFd>) -> Self {
        self.stderr = Some(Arc::new(file.into()));
        self
    }

    /// The directory it runs in.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(&self) -> Gateway {
        self.try_start().unwrap_or_else(|printed| panic!("the gateway did not start:\n{printed}"))
    }

    /// Starts it and waits until it listens, or has ended: then what it has printed.
    pub(crate) fn try_start(&self) -> Result<Gateway, String> {
        let mut child = self.spawn();
        let output = Arc::new(Mutex::new(String::new()));
        let (listening, address) = mpsc::channel();
        let lines = output.clone();
        match child.stdout.take() {
            Some(stdout) => {
                thread::spawn(move || {
                    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                        let found = address_in(&line);
                        push(&lines, &line);
                        if let Some(found) = found {
                            let _ = listening.send(found);
                        }
                    }
                });
            }
            None => {
                let id = child.id();
                thread::spawn(move || listening.send(address_of(id)?).ok());
            }
        }
        let lines = output.clone();
        let errors = child.stderr.take().map(|stderr| {
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    push(&lines, &line);
                }
            })
        });
        match address.recv_timeout(DEADLINE) {
            Ok(address) => Ok(Gateway { command: self.clone(), child, address, output }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let _ = errors.map(thread::JoinHandle::join);
                let printed = output.lock().unwrap().clone();
                assert!(
                    error == RecvTimeoutError::Disconnected,
                    "it neither listens nor has ended: {printed}"
                );
                Err(printed)
            }
        }
    }

    /// Runs it to its end, as a failed start does.
    pub(crate) fn output(&self) -> Output {
        end(self.spawn())
    }

    /// Starts it and kills it so soon that it may not yet listen.
    pub(crate) fn start_and_kill(&self, after: Duration) {
        let mut child = self.spawn();
        thread::sleep(after);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Runs it with pipes that nobody reads yet.
    pub(crate) fn spawn(&self) -> Child {
        let words = self.under.iter().map(OsStr::new).chain([gateway_binary().as_os_str()]);
        let words: Vec<&OsStr> = words.chain(self.args.iter().map(OsStr::new)).collect();
        Command::new(words[0])
            .args(&words[1..])
            .current_dir(self.dir())
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(to(&self.stdout))
            .stderr(to(&self.stderr))
            .spawn()
            .unwrap()
    }
}

impl Gateway {
    /// A gateway in front of this upstream.
    pub(crate) fn before(upstream_base_url: &str) -> Self {
        GatewayCommand::new()
            .env("UPSTREAM_BASE_URL", upstream_base_url)
            .env("UPSTREAM_API_KEY", "sk-sponsor-secret")
            .start()
    }

    /// A gateway with its built-in upstream.
    pub(crate) fn demo() -> Self {
        GatewayCommand::new().arg("--demo").start()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a path on it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The directory it runs in.
    pub(crate) fn dir(&self) -> &Path {
        self.command.dir()
    }

    /// All that it has printed so far, errors and log included.
    pub(crate) fn printed(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Issues a key and returns it.
    pub(crate) async fn create_key(&self, request: Value) -> String {
        let response = self.admin(Method::POST, "/admin/keys", &request).await;
        response["key"].as_str().unwrap().to_owned()
    }

    /// Calls the admin API, which must succeed, and returns its response.
    pub(crate) async fn admin(&self, method: Method, path: &str, body: &Value) -> Value {
        let token = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = Client::http1().send(method, &self.url(path), &headers, body).await;
        assert!(response.status.is_success(), "{path}: {response:?}");
        response.json()
    }

    /// The report that the holder of a key gets.
    pub(crate) async fn usage(&self, key: &str) -> Value {
        Client::http1().get_as(key, &self.url("/usage")).await.json()
    }

    /// Units used today; the reports of holder and operator must agree.
    pub(crate) async fn used(&self, key: &str) -> u64 {
        let usage = self.usage(key).await;
        let path = format!("/admin/keys/{key}");
        let record = self.admin(Method::GET, &path, &Value::Null).await;
        assert_eq!(usage["used"], record["used_today"], "{usage} {record}");
        assert_eq!(usage["remaining"], record["remaining"], "{usage} {record}");
        usage["used"].as_u64().unwrap()
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Kills it and starts it again in the same directory. The port is another one.
    pub(crate) fn restart(&mut self) {
        self.kill9();
        *self = self.command.clone().start();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The program of `TOWER_QUOTA_GATEWAY`, or the example beside this test, built again if it is
/// older than its sources.
pub(crate) fn gateway_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| env::var_os("TOWER_QUOTA_GATEWAY").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let test = env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", "gateway", "--target-dir"]);
    cargo.arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in env::vars().filter(|(name, _)| set_for_tests(name)) {
        cargo.env_remove(name);
    }
    assert!(cargo.status().unwrap().success());
    profile.join("examples").join("gateway")
}

/// Whether cargo sets this variable for tests. A cargo that inherits it builds all dependencies again, and so
/// does the next one without it.
pub(crate) fn set_for_tests(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_PRIMARY_"]
        .iter()
        .any(|prefix| variable.starts_with(prefix))
}

fn to(file: &Option<Arc<OwnedFd>>) -> Stdio {
    file.as_ref().map_or_else(Stdio::piped, |file| file.try_clone().unwrap().into())
}

/// Waits for the end of a gateway's command and reads its output.
pub(crate) fn end(mut child: Child) -> Output {
    // It may print more than a pipe holds.
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let stdout = thread::spawn(move || read(stdout));
    let stderr = thread::spawn(move || read(stderr));
    let status = wait(&mut child);
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// All that is left to be read.
fn read(stream: Option<impl Read>) -> Vec<u8> {
    let mut text = Vec::new();
    stream.map(|mut stream| stream.read_to_end(&mut text).unwrap());
    text
}

/// Where the process listens, as the system knows; `None` if it has ended.
fn address_of(process: u32) -> Option<SocketAddr> {
    loop {
        let files = fs::read_dir(format!("/proc/{process}/fd")).ok()?;
        let files = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        let sockets: Vec<String> = files
            .filter_map(|file| {
                Some(file.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
            })
            .collect();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let listening = table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_ours = fields[3] == "0A" && sockets.iter().any(|socket| *socket == fields[9]);
            let (_, port) = fields[1].split_once(':').filter(|_| is_ours)?;
            u16::from_str_radix(port, 16).ok()
        });
        if let Some(port) = listening {
            return Some(([127, 0, 0, 1], port).into());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, address) = line.strip_prefix("listening on")?.split_once("http://")?;
    address.trim().parse().ok()
}

fn push(output: &Mutex<String>, line: &str) {
    let mut output = output.lock().unwrap();
    output.push_str(line);
    output.push('\n');
}

fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("the gateway did not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
