//! A PostgreSQL server of the tests, from the installed binaries, as an unprivileged user.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::unistd::{Uid, User};
use tempfile::TempDir;

/// Runs the server until it ends, or its input is closed, also by the death of the test.
const UNTIL_CLOSED: &str = r#"exec 3<&0; "$@" < /dev/null & server=$!; (cat <&3 > /dev/null; kill -QUIT $server) & wait $server"#;

/// A server on a Unix socket, which ends with the test's process.
pub(crate) struct Postgres {
    directory: TempDir,
    settings: Vec<String>,
    server: Mutex<Child>,
    databases: AtomicU32,
}

impl Postgres {
    /// Returns the server that the tests of this process share. It does not sync.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&["fsync=off", "max_connections=500"]))
    }

    /// Starts a server with these settings.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let directory = TempDir::with_prefix("pg").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        if let Some(user) = unprivileged() {
            chown(&data, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        let mut initdb = program("initdb");
        initdb.args([
            "--no-sync",
            "--auth=trust",
            "--username=quota",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]);
        let output = initdb.arg("--pgdata").arg(&data).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let settings: Vec<_> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let server = Mutex::new(serve(&data, &settings));
        Self { directory, settings, server, databases: AtomicU32::new(0) }
    }

    /// Stops the server: `fast` or `immediate`.
    pub(crate) fn stop(&self, how: &str) {
        let mut stop = program("pg_ctl");
        stop.args(["stop", "--silent", "--mode", how, "--pgdata"]).arg(self.data());
        assert!(stop.status().unwrap().success());
        self.server.lock().unwrap().wait().unwrap();
    }

    /// Starts the server that was stopped.
    pub(crate) fn resume(&self) {
        *self.server.lock().unwrap() = serve(&self.data(), &self.settings);
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Creates an empty database and returns its URL.
    pub(crate) fn create_database(&self) -> String {
        let name = format!("quota_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// Returns the URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://quota@/{database}?host={}", self.data().display())
    }

    /// Runs statements with `psql`, and returns what it prints.
    pub(crate) fn sql(&self, database: &str, statements: &str) -> String {
        psql(&self.url(database), statements)
    }
}

/// Runs statements with `psql`, and returns what it prints.
pub(crate) fn psql(url: &str, statements: &str) -> String {
    let mut psql = Command::new(binaries().join("psql"));
    psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet"]);
    psql.args(["--set=ON_ERROR_STOP=1", "--command", statements, url]);
    let output = psql.output().unwrap();
    assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Connects, without TLS.
#[expect(clippy::disallowed_methods, reason = "one task for the connection")]
pub(crate) async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Starts the server on its data, and waits until it accepts connections.
fn serve(data: &Path, settings: &[String]) -> Child {
    let server = program("postgres");
    let mut command = Command::new("sh");
    command.args(["-c", UNTIL_CLOSED, "sh"]).arg(server.get_program());
    command.arg("-D").arg(data).arg("-k").arg(data).args(["-c", "listen_addresses="]);
    settings.iter().for_each(|setting| {
        command.args(["-c", setting]);
    });
    as_unprivileged(&mut command);
    let mut child =
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the server starts");
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut lines = log.lines().map_while(Result::ok);
    let is_ready = lines.any(|line| line.contains("ready to accept connections"));
    assert!(is_ready, "the server has ended");
    // What nobody reads must not stop the server.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut server = self.server.lock().unwrap();
        drop(server.stdin.take());
        server.wait().unwrap();
    }
}

/// Returns a program of the server, to be run as a user whom it accepts.
fn program(name: &str) -> Command {
    let mut command = Command::new(binaries().join(name));
    as_unprivileged(&mut command);
    command
}

fn as_unprivileged(command: &mut Command) {
    command.current_dir("/");
    if let Some(user) = unprivileged() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
}

/// Returns the user for a server that is started by root, which PostgreSQL does not allow.
fn unprivileged() -> Option<User> {
    let named = |name| User::from_name(name).ok().flatten();
    Uid::effective().is_root().then(|| named("postgres").or_else(|| named("nobody")).unwrap())
}

/// Returns whether there is a server to start.
pub(crate) fn is_installed() -> bool {
    installed().is_some()
}

fn binaries() -> PathBuf {
    installed().expect("PostgreSQL is installed")
}

/// Returns the directory of the newest installed version.
fn installed() -> Option<PathBuf> {
    let newest = || {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let versions = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
        versions.filter(|bin| bin.join("initdb").exists()).max()
    };
    let configured = || {
        let output = Command::new("pg_config").arg("--bindir").output().ok()?;
        Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()))
    };
    newest().or_else(configured)
}
