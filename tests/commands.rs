//! What `gateway` does beside serving: each command's lines, exit codes and promises.

mod common;

use std::{
    fs::{self, File},
    io::Read,
    net::TcpListener,
    path::Path,
    process::{Child, Output},
    thread,
    time::{Duration, Instant},
};

use common::{Gateway, GatewayCommand, Random, Upstream, end, full};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use tower_quota::store::sqlite::{SqliteOptions, SqliteStore};

/// Runs a command of the gateway with these settings.
fn run(settings: &GatewayCommand, arguments: &str) -> Output {
    with(settings, arguments).output()
}

fn with(settings: &GatewayCommand, arguments: &str) -> GatewayCommand {
    arguments.split(' ').fold(settings.clone(), |command, word| command.arg(word))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn assert_healthcheck(output: &Output, code: i32, line: &str) {
    let printed = stdout(output);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(printed.contains(line), "{line:?} is not in {printed:?}");
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// A server that answers `status` and `body` to everything, and its URL.
async fn answers(status: u16, body: &'static str) -> (Upstream, String) {
    let upstream = Upstream::start(move |_| {
        let mut response = http::Response::new(full(body));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        response
    })
    .await;
    let url = format!("http://{}", upstream.address());
    (upstream, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthcheck_finds_the_gateway_by_the_settings_that_started_it() {
    let gateway = Gateway::demo();
    let port = gateway.address().port().to_string();
    let here = GatewayCommand::bare();
    for settings in [
        here.clone().env("PORT", &port),
        here.clone().env("PORT", &port).env("HOST", "0.0.0.0"),
        here.clone().env("PORT", &port).env("HOST", "localhost"),
        here.clone().env("PORT", "1").arg("--port").arg(&port),
    ] {
        assert_healthcheck(&run(&settings, "healthcheck"), 0, "/healthz: ok, version ");
        assert_healthcheck(&run(&settings, "healthcheck --ready"), 0, "/readyz: ok");
    }
    let output = run(&here, &format!("healthcheck --port {port}"));
    assert_healthcheck(&output, 0, "/healthz: ok");
    let output = run(&here, &format!("healthcheck --url http://127.0.0.1:{port}/"));
    assert_healthcheck(&output, 0, "/healthz: ok");
    std::fs::write(here.dir().join(".env"), format!("PORT={port}\n")).unwrap();
    assert_healthcheck(&run(&here, "healthcheck"), 0, "/healthz: ok");
    assert!(!gateway.printed().contains("/healthz"), "{}", gateway.printed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthcheck_looks_at_no_setting_but_the_address() {
    let gateway = Gateway::demo();
    let port = gateway.address().port().to_string();
    let settings = GatewayCommand::bare()
        .env("ADMIN_TOKEN", "short")
        .env("ADMIN_TOKEN_FILE", "/not/there")
        .env("UPSTREAM_BASE_URL", "\"quoted\"")
        .env("DATABASE_URL", "postgres://elsewhere")
        .env("DAILY_REQ_LIMIT", "many");
    let dir = settings.dir().to_owned();
    let dot_env = format!("PORT={port}\nAMDIN_TOKEN=x\nADMIN_TOKEN_FILE=${{X}}\n= no line\n");
    std::fs::write(dir.join(".env"), dot_env).unwrap();
    assert_healthcheck(&run(&settings, "healthcheck"), 0, "ok");
    let left: Vec<_> = dir.read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, [".env"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthcheck_says_what_is_wrong() {
    let settings = GatewayCommand::bare();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let output = run(&settings, &format!("healthcheck --port {free}"));
    assert_healthcheck(&output, 1, &format!("nothing listens on 127.0.0.1:{free}"));

    let check = |url: &str| run(&settings, &format!("healthcheck --timeout 1 --url {url}"));
    let dead = r#"{"ok":false,"reason":"a thread of the store has ended: restart the gateway"}"#;
    let (_upstream, url) = answers(503, dead).await;
    assert_healthcheck(&check(&url), 1, "a thread of the store has ended: restart the gateway");
    for (status, body) in [(200, "<html>"), (404, "{}"), (200, "{}"), (302, "")] {
        let (_upstream, url) = answers(status, body).await;
        assert_healthcheck(&check(&url), 1, &format!("answers {status}: that is no gateway"));
    }

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let begun = Instant::now();
    assert_healthcheck(&check(&url), 1, "does not answer within 1 s");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_healthcheck(&check("ftp://x"), 1, "--url: expected an address such as");
    assert_healthcheck(&run(&settings, "healthcheck --port 0"), 1, "PORT is 0");
    assert_healthcheck(&run(&settings, "healthcheck --host x.example"), 1, "HOST: expected an IP");
}

/// A database of a gateway with so many rows.
async fn database(path: &Path, rows: u32) {
    let store = SqliteStore::open(SqliteOptions::new(path)).unwrap();
    store.close().await.unwrap();
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(&format!(
            "WITH RECURSIVE row (number) AS
                 (SELECT 1 UNION ALL SELECT number + 1 FROM row WHERE number < {rows})
             INSERT INTO daily_usage (key_id, day, used)
             SELECT 'key-' || number, '2026-11-01', number FROM row;
             PRAGMA wal_checkpoint(TRUNCATE)"
        ))
        .unwrap();
}

/// How many rows a database has that is whole.
fn rows(path: &Path) -> u32 {
    let connection = Connection::open(path).unwrap();
    let verdict: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok", "{}", path.display());
    connection.query_row("SELECT count(*) FROM daily_usage", [], |row| row.get(0)).unwrap()
}

/// The names in a directory that end so.
fn ending(dir: &Path, end: &str) -> Vec<String> {
    let names = dir.read_dir().unwrap().map(|file| file.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(end)).collect()
}

/// Waits until the command writes a copy.
fn until_it_copies(child: &mut Child, dir: &Path) {
    let until = Instant::now() + common::DEADLINE;
    while ending(dir, ".part").is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was stopped");
        assert!(Instant::now() < until, "it copies nothing");
        thread::sleep(Duration::from_millis(1));
    }
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[track_caller]
fn assert_stopped(output: &Output, code: i32, state: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(printed.ends_with(&format!("stopped: {state}\n")), "{state:?} is not in {printed:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

const MANY_ROWS: u32 = 200_000;

#[tokio::test]
async fn a_backup_that_is_stopped_leaves_nothing_behind() {
    let settings = GatewayCommand::bare();
    let dir = settings.dir();
    database(&dir.join("quota.db"), MANY_ROWS).await;
    let before = fs::read(dir.join("quota.db")).unwrap();
    let backup = with(&settings, "backup copy.db");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut child = backup.spawn();
        until_it_copies(&mut child, dir);
        send(&child, signal);
        assert_stopped(&end(child), code, "copy.db was not written");
        assert_eq!(ending(dir, ".part"), [""; 0]);
        assert!(!dir.join("copy.db").exists());
    }
    fs::write(dir.join("copy.db"), "old").unwrap();
    let mut child = with(&settings, "backup --replace copy.db").spawn();
    until_it_copies(&mut child, dir);
    send(&child, Signal::INT);
    assert_stopped(&end(child), 130, "copy.db is what it was before");
    assert_eq!(fs::read(dir.join("copy.db")).unwrap(), b"old");
    assert!(fs::read(dir.join("quota.db")).unwrap() == before);

    let output = run(&settings, "backup --replace copy.db");
    assert!(stdout(&output).contains("MiB, checked"), "{output:?}");
    assert_eq!(rows(&dir.join("copy.db")), MANY_ROWS);
}

#[tokio::test]
async fn a_restore_that_is_stopped_leaves_the_database_as_it_was() {
    let settings = GatewayCommand::bare();
    let dir = settings.dir();
    database(&dir.join("copy.db"), MANY_ROWS).await;
    let restore = with(&settings, "restore copy.db");

    let mut child = restore.spawn();
    until_it_copies(&mut child, dir);
    send(&child, Signal::INT);
    assert_stopped(&end(child), 130, "quota.db is not there, as before");
    assert!(!dir.join("quota.db").exists());

    database(&dir.join("quota.db"), 1).await;
    let mut child = restore.spawn();
    until_it_copies(&mut child, dir);
    send(&child, Signal::INT);
    assert_stopped(&end(child), 130, "quota.db is what it was before");
    assert_eq!(ending(dir, ".part"), [""; 0]);
    assert_eq!(rows(&dir.join("quota.db")), 1);

    let output = restore.output();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(rows(&dir.join("quota.db")), MANY_ROWS);
}

#[tokio::test]
async fn whenever_a_signal_comes_a_restore_leaves_the_old_database_or_the_new_one() {
    const OLD: u32 = 1000;
    const NEW: u32 = 5000;
    let settings = GatewayCommand::bare();
    let dir = settings.dir();
    database(&dir.join("old.db"), OLD).await;
    database(&dir.join("new.db"), NEW).await;
    let begun = Instant::now();
    run(&settings, "restore old.db");
    let one = begun.elapsed();
    let mut random = Random::seeded("whenever a signal comes");
    for (round, file, rows_of_it) in
        (0..20).map(|round| if round % 2 == 0 { (round, "new", NEW) } else { (round, "old", OLD) })
    {
        let before = rows(&dir.join("quota.db"));
        let child = with(&settings, &format!("restore {file}.db")).spawn();
        thread::sleep(one.mul_f64(random.below(1000) as f64 / 900.0));
        send(&child, Signal::INT);
        let output = end(child);
        let after = match output.status.code() {
            Some(0) => rows_of_it,
            // Before it has begun to catch signals.
            Some(130) | None => before,
            _ => panic!("round {round}: {output:?}"),
        };
        assert_eq!(rows(&dir.join("quota.db")), after, "round {round}: {output:?}");
        assert_eq!(ending(dir, ".part"), [""; 0]);
    }
}

#[tokio::test]
async fn an_import_that_is_stopped_imports_nothing() {
    const KEYS: usize = 20_000;
    let settings = GatewayCommand::bare();
    let dir = settings.dir();
    let original = Connection::open(dir.join("original.db")).unwrap();
    original
        .execute_batch(&format!(
            "CREATE TABLE trial_keys (id INTEGER PRIMARY KEY, key TEXT, label TEXT, daily_limit INTEGER);
             WITH RECURSIVE row (number) AS
                 (SELECT 1 UNION ALL SELECT number + 1 FROM row WHERE number < {KEYS})
             INSERT INTO trial_keys (key, label, daily_limit)
             SELECT 'trial-of-old-' || number, 'label', 5 FROM row"
        ))
        .unwrap();
    drop(original);
    let import = with(&settings, "import original.db");
    let mut child = import.spawn();
    let until = Instant::now() + common::DEADLINE;
    while ending(dir, ".journal.1").is_empty() {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < until);
        thread::sleep(Duration::from_millis(1));
    }
    send(&child, Signal::INT);
    assert_stopped(&end(child), 130, "nothing was imported");
    let keys = || -> usize {
        let database = Connection::open(dir.join("quota.db")).unwrap();
        database.query_row("SELECT count(*) FROM api_keys", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(keys(), 0);
    let dry = stdout(&run(&settings, "import --dry-run original.db"));
    assert!(dry.contains("20000 new"), "{}", dry.lines().last().unwrap_or_default());
    assert_eq!(keys(), 0);
}

#[tokio::test]
async fn a_second_signal_ends_a_command_that_cannot_stop_yet() {
    let settings = GatewayCommand::bare();
    let dir = settings.dir();
    database(&dir.join("quota.db"), 1).await;
    // Opening this waits for a writer, for ever.
    nix::unistd::mkfifo(&dir.join("pipe.db"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut child = with(&settings, "restore pipe.db").spawn();
    let until = Instant::now() + common::DEADLINE;
    let catches_signals = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap() & 0b10 != 0
    };
    while !catches_signals() {
        assert!(Instant::now() < until, "it catches no SIGINT");
        thread::sleep(Duration::from_millis(1));
    }
    let mut sent = 0;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "{sent} signals did not end it");
        send(&child, Signal::INT);
        sent += 1;
        thread::sleep(Duration::from_millis(50));
    }
    assert!(sent > 1, "the first one stops it where that is possible");
    let output = end(child);
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(rows(&dir.join("quota.db")), 1);
}

#[tokio::test]
async fn progress_is_one_line_on_a_terminal_and_few_lines_elsewhere() {
    let settings = GatewayCommand::bare();
    let dir = settings.dir();
    database(&dir.join("quota.db"), MANY_ROWS).await;
    let pty = nix::pty::openpty(None, None).unwrap();
    let on_terminal = with(&settings, "backup on_terminal.db").stderr(pty.slave).spawn();
    let elsewhere = with(&settings, "backup elsewhere.db").spawn();
    let until = Instant::now() + common::DEADLINE;
    while ending(dir, ".part").len() < 2 {
        assert!(Instant::now() < until, "they copy nothing");
        thread::sleep(Duration::from_millis(1));
    }
    for child in [&on_terminal, &elsewhere] {
        send(child, Signal::STOP);
    }
    // What they do takes long.
    thread::sleep(Duration::from_millis(3100));
    for child in [&on_terminal, &elsewhere] {
        send(child, Signal::CONT);
    }
    let elsewhere_output = end(elsewhere);
    let output = end(on_terminal);
    assert!(output.status.success(), "{output:?}");
    let mut drawn = Vec::new();
    let _ = File::from(pty.master).read_to_end(&mut drawn);
    let drawn = String::from_utf8(drawn).unwrap();
    assert!(drawn.starts_with("\r"), "{drawn:?}");
    assert!(drawn.ends_with("\r\x1b[K"), "{drawn:?}");
    assert!(drawn.contains(" MiB of ") && !drawn.contains('\n'), "{drawn:?}");
    let printed = String::from_utf8(elsewhere_output.stderr).unwrap();
    assert!(!printed.contains(['\r', '\x1b']), "{printed:?}");
    assert!((1..=2).contains(&printed.lines().count()), "{printed:?}");
}
