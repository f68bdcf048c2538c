//! The subcommands: their output, exit codes and promises.

use std::{
    fs::{self, File},
    io::Read,
    net::TcpListener,
    ops::ControlFlow,
    path::Path,
    process::{Child, Output},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    Gateway, GatewayCommand, Random, Upstream, end, full, gateway_binary, set_for_tests,
};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use tower_quota::{
    admin::store::{Actor, AdminStore, ImportedKey, KeyPageQuery},
    key::{KeyId, KeyRecord, Limit, SecretKey},
    store::sqlite::{
        BackupErrorKind, IfExists, OnProgress, Progress, ProgressStep, SqliteOptions, SqliteStore,
        backup, restore,
    },
};

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

/// Starts a server that responds with `status` and `body` to every request, and returns its URL.
async fn server(status: u16, body: &'static str) -> (Upstream, String) {
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
async fn a_healthcheck_ignores_all_settings_but_the_address() {
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
    let free = crate::common::free_port().to_string();
    let output = run(&settings, &format!("healthcheck --port {free}"));
    assert_healthcheck(&output, 1, &format!("nothing listens on 127.0.0.1:{free}"));

    let check = |url: &str| run(&settings, &format!("healthcheck --timeout 1 --url {url}"));
    let dead = r#"{"ok":false,"reason":"a thread of the store has ended: restart the gateway"}"#;
    let (_upstream, url) = server(503, dead).await;
    assert_healthcheck(&check(&url), 1, "a thread of the store has ended: restart the gateway");
    for (status, body) in [(200, "<html>"), (404, "{}"), (200, "{}"), (302, "")] {
        let (_upstream, url) = server(status, body).await;
        assert_healthcheck(&check(&url), 1, &format!("returns {status}: not a gateway"));
    }

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let begun = Instant::now();
    assert_healthcheck(&check(&url), 1, "does not respond within 1 s");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_healthcheck(&check("ftp://x"), 1, "--url: expected a URL such as");
    assert_healthcheck(&run(&settings, "healthcheck --port 0"), 1, "PORT is 0");
    assert_healthcheck(&run(&settings, "healthcheck --host x.example"), 1, "HOST: expected an IP");
}

/// Creates a database with this many rows.
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

/// Returns the number of rows of an intact database.
fn rows(path: &Path) -> u32 {
    let connection = Connection::open(path).unwrap();
    let result: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(result, "ok", "{}", path.display());
    connection.query_row("SELECT count(*) FROM daily_usage", [], |row| row.get(0)).unwrap()
}

/// Returns the names in a directory with this ending.
fn ending(dir: &Path, end: &str) -> Vec<String> {
    let names = dir.read_dir().unwrap().map(|file| file.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(end)).collect()
}

/// Waits until the command writes a copy.
fn until_it_copies(child: &mut Child, dir: &Path) {
    let until = Instant::now() + crate::common::DEADLINE;
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
    assert_stopped(&end(child), 130, "copy.db is unchanged");
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
    assert_stopped(&end(child), 130, "quota.db was not written");
    assert!(!dir.join("quota.db").exists());

    database(&dir.join("quota.db"), 1).await;
    let mut child = restore.spawn();
    until_it_copies(&mut child, dir);
    send(&child, Signal::INT);
    assert_stopped(&end(child), 130, "quota.db is unchanged");
    assert_eq!(ending(dir, ".part"), [""; 0]);
    assert_eq!(rows(&dir.join("quota.db")), 1);

    let output = restore.output();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(rows(&dir.join("quota.db")), MANY_ROWS);
}

/// Stops at this step, and fails if another one follows.
fn stopping_at(step: ProgressStep) -> impl OnProgress + Send + 'static {
    let mut stopped = false;
    move |progress: &Progress| {
        assert!(!stopped, "{progress:?} comes after {step:?} was stopped");
        stopped = progress.step == step;
        if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[tokio::test]
async fn an_observer_can_stop_a_copy_at_each_step_and_nothing_has_changed() {
    use ProgressStep::{Check, Checkpoint, Copy, Publish, Sync};

    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (directory.path().join("old.db"), directory.path().join("new.db"));
    let copy = directory.path().join("copy.db");
    database(&old, 10).await;
    database(&new, 20).await;
    let missing = directory.path().join("missing.db");
    restore(&SqliteOptions::new(&missing), &old, stopping_at(Copy)).unwrap_err();
    assert!(!missing.exists());
    for step in [Copy, Checkpoint, Check, Sync, Publish] {
        let options = SqliteOptions::new(&old);
        let error = backup(&options, &copy, IfExists::Fail, stopping_at(step)).unwrap_err();
        assert_eq!(error.kind(), BackupErrorKind::Stopped, "{step:?}: {error}");
        let error = restore(&options, &new, stopping_at(step)).unwrap_err();
        assert_eq!(error.kind(), BackupErrorKind::Stopped, "{step:?}: {error}");
        assert!(!copy.exists(), "{step:?}");
        assert_eq!(ending(directory.path(), ".part"), [""; 0], "{step:?}");
        assert_eq!(rows(&old), 10, "{step:?}");
    }
}

#[tokio::test]
async fn an_observer_can_stop_an_import_until_it_is_committed() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(SqliteOptions::new(directory.path().join("quota.db"))).unwrap();
    let keys: Vec<ImportedKey> = (0..3)
        .map(|number| SecretKey::parse(&format!("trial-of-old-{number}")).unwrap())
        .map(|key| {
            ImportedKey::new(key.hash(), KeyRecord::new(KeyId::generate(), Limit::Unlimited))
        })
        .map(Result::unwrap)
        .collect();
    let all = || KeyPageQuery::first(10);
    let operator = || Actor::new("test", None);
    for step in [ProgressStep::Import, ProgressStep::Publish] {
        let keys = keys.clone();
        let stopped = store.import_with_progress(keys, false, operator(), stopping_at(step)).await;
        assert_eq!(stopped.unwrap(), None, "{step:?}");
        assert_eq!(store.list(all()).await.unwrap().keys.len(), 0, "{step:?}");
    }
    let imported = store.import_with_progress(keys, false, operator(), ()).await.unwrap();
    assert_eq!(imported.unwrap().len(), 3);
    assert_eq!(store.list(all()).await.unwrap().keys.len(), 3);
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_interrupted_restore_leaves_the_old_or_the_new_database() {
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
            // The signal came before the command has started to catch signals.
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
    let until = Instant::now() + crate::common::DEADLINE;
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
    // Opening a FIFO blocks until there is a writer.
    nix::unistd::mkfifo(&dir.join("pipe.db"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut child = with(&settings, "restore pipe.db").spawn();
    let until = Instant::now() + crate::common::DEADLINE;
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
    let begun = Instant::now();
    let pty = nix::pty::openpty(None, None).unwrap();
    let on_terminal = with(&settings, "backup on_terminal.db").stderr(pty.slave).spawn();
    let elsewhere = with(&settings, "backup elsewhere.db").spawn();
    let until = Instant::now() + crate::common::DEADLINE;
    while ending(dir, ".part").len() < 2 {
        assert!(Instant::now() < until, "they copy nothing");
        thread::sleep(Duration::from_millis(1));
    }
    for child in [&on_terminal, &elsewhere] {
        send(child, Signal::STOP);
    }
    // Both commands take more than a second.
    thread::sleep(Duration::from_millis(3100));
    for child in [&on_terminal, &elsewhere] {
        send(child, Signal::CONT);
    }
    let elsewhere_output = end(elsewhere);
    let output = end(on_terminal);
    let seconds = begun.elapsed().as_secs() as usize;
    assert!(output.status.success(), "{output:?}");
    let mut drawn = Vec::new();
    let _ = File::from(pty.master).read_to_end(&mut drawn);
    let drawn = String::from_utf8(drawn).unwrap();
    assert!(drawn.starts_with("\r"), "{drawn:?}");
    assert!(drawn.ends_with("\r\x1b[K"), "{drawn:?}");
    // On a fast disk everything is copied before the line is drawn.
    let steps =
        [" MiB of ", "applying the journal, ", "checking the copy, ", "writing to the disk, "];
    assert!(steps.iter().any(|step| drawn.contains(step)) && !drawn.contains('\n'), "{drawn:?}");
    let printed = String::from_utf8(elsewhere_output.stderr).unwrap();
    assert!(!printed.contains(['\r', '\x1b']), "{printed:?}");
    assert!((1..=1 + seconds / 3).contains(&printed.lines().count()), "{printed:?}");
}

/// Returns the findings of `gateway check` with this mark and subject.
fn found(output: &Output, mark: &str, what: &str) -> String {
    let printed = stdout(output);
    let lines = printed.lines().filter(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(mark) && words.next() == Some(what)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn assert_found(output: &Output, mark: &str, what: &str, text: &str) {
    let lines = found(output, mark, what);
    assert!(lines.contains(text), "{text:?} is not in {mark} {what}\n{}", stdout(output));
}

/// Settings without any warning or failure.
fn sound(upstream: &str) -> GatewayCommand {
    let free = crate::common::free_port();
    GatewayCommand::new()
        .env("PORT", free.to_string())
        .env("UPSTREAM_BASE_URL", upstream)
        .env("UPSTREAM_API_KEY", "sk-sponsor-secret")
}

/// An upstream that accepts one credential, with its models below `/v1`.
async fn upstream() -> Upstream {
    Upstream::start(|request| {
        let mut response = http::Response::new(full(r#"{"object":"list","data":[{"id":"m"}]}"#));
        let authorization = request.headers().get("authorization");
        *response.status_mut() = match request.uri().path() {
            "/v1/models" if authorization.is_none_or(|key| key != "Bearer sk-sponsor-secret") => {
                http::StatusCode::UNAUTHORIZED
            }
            "/v1/models" => http::StatusCode::OK,
            _ => http::StatusCode::NOT_FOUND,
        };
        response
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_everything_in_order_and_changes_nothing() {
    let upstream = upstream().await;
    let settings = sound(&upstream.base_url());
    let output = run(&settings, "check");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_found(&output, "ok", "settings", "6 of ");
    assert_found(&output, "ok", "address", "is free");
    assert_found(&output, "ok", "database", "quota.db does not exist; the first start creates it");
    assert_found(&output, "ok", "upstream", "the credential is accepted, 1 model");
    assert!(stdout(&output).lines().last().unwrap().starts_with("0 failures, "), "{output:?}");
    assert!(!stdout(&output).contains("sk-sponsor"), "{output:?}");
    assert_eq!(settings.dir().read_dir().unwrap().count(), 0);
    let calls = upstream.calls();
    assert!(calls.iter().all(|call| call.method == "GET" && call.body.is_empty()), "{calls:?}");
    assert_eq!(calls.len(), 1);

    let gateway = settings.start();
    gateway.create_key(serde_json::json!({})).await;
    let before = fs::read(gateway.dir().join("quota.db")).unwrap();
    let output = run(&settings, "check --offline");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_found(&output, "ok", "address", "a gateway is running on 127.0.0.1:");
    assert_found(&output, "ok", "database", "quota.db: intact, 1 key,");
    assert_found(&output, "ok", "database", "in use by a gateway");
    assert_found(&output, "ok", "upstream", "not checked");
    assert!(fs::read(gateway.dir().join("quota.db")).unwrap() == before);
    assert_eq!(upstream.count(), 1);
    drop(gateway);
    assert_found(&run(&settings, "check --offline"), "ok", "database", "1 key, ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_reports_faults_of_the_upstream() {
    let upstream = upstream().await;
    let good = sound(&upstream.base_url());
    let failed = |settings: GatewayCommand, text: &str| {
        let output = run(&settings, "check");
        assert_found(&output, "FAILED", "upstream", text);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    };
    failed(
        good.clone().env("UPSTREAM_API_KEY", "sk-other-secret"),
        "the credential is rejected (401)",
    );
    failed(
        good.clone().env("UPSTREAM_API_KEY", ""),
        "it requires a credential: set UPSTREAM_API_KEY",
    );
    let root = format!("http://{}", upstream.address());
    let advice = format!("set UPSTREAM_BASE_URL={root}/v1");
    failed(good.clone().env("UPSTREAM_BASE_URL", &root), &advice);
    failed(good.clone().env("UPSTREAM_BASE_URL", format!("{root}/v1/v1")), &advice);
    failed(
        good.clone().env("UPSTREAM_BASE_URL", format!("{root}/x")),
        "(404): the base URL probably",
    );
    let tls = format!("https://{}/v1", upstream.address());
    failed(good.clone().env("UPSTREAM_BASE_URL", tls), "may have to begin with http://");
    let unreachable =
        sound("http://127.0.0.1:1/v1").env("UPSTREAM_BASE_URL", "http://127.0.0.1:1/v1");
    failed(unreachable, "nothing listens there");
    let no_host = "http://upstream.invalid/v1";
    failed(good.clone().env("UPSTREAM_BASE_URL", no_host), "its name does not resolve");
    let proxy = good.clone().env("UPSTREAM_PROXY", "http://127.0.0.1:1");
    failed(proxy, "UPSTREAM_PROXY");
    for (status, body, text) in [
        (200, "<html>", "but no list of models"),
        (302, "", "a redirect to nowhere"),
        (402, "", "the sponsor's balance is used up"),
        (500, "", "it currently fails (500)"),
        (418, "", "returns 418"),
    ] {
        let (_upstream, url) = server(status, body).await;
        failed(good.clone().env("UPSTREAM_BASE_URL", url), text);
    }
    let (_upstream, url) = server(429, "").await;
    let output = run(&good.clone().env("UPSTREAM_BASE_URL", url), "check");
    assert_found(&output, "warning", "upstream", "it currently limits the sponsor's rate");
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    let late = Upstream::start(|_| {
        let mut response = http::Response::new(full(r#"{"data":[]}"#));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        response.headers_mut().insert("date", http::HeaderValue::from_static(date));
        response
    })
    .await;
    let output = run(&good.env("UPSTREAM_BASE_URL", late.base_url()), "check");
    assert_found(&output, "warning", "upstream", "s ahead of the upstream's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_reports_faults_of_the_machine() {
    use std::os::unix::fs::PermissionsExt;

    let settings = sound("http://127.0.0.1:1/v1");
    let check = |settings: &GatewayCommand| run(settings, "check --offline");
    let failed = |settings: &GatewayCommand, what: &str, text: &str| {
        let output = check(settings);
        assert_found(&output, "FAILED", what, text);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    };
    let warned = |settings: &GatewayCommand, what: &str, text: &str| {
        let output = check(settings);
        assert_found(&output, "warning", what, text);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    };
    failed(
        &settings.clone().env("DAILY_REQ_LIMIT", "many"),
        "settings",
        "DAILY_REQ_LIMIT: expected",
    );
    warned(&settings.clone().env("HOST", "0.0.0.0"), "settings", "TRUSTED_PROXIES is not set");
    warned(&GatewayCommand::bare().env("PORT", "0"), "settings", "ADMIN_TOKEN is not set");
    failed(&settings.clone().env("HOST", "192.0.2.1"), "address", "cannot listen on 192.0.2.1");
    let (_other, url) = server(200, "hello").await;
    let port = url.rsplit_once(':').unwrap().1;
    failed(&settings.clone().env("PORT", port), "address", "not a gateway");
    warned(&settings.clone().env("MAX_CONNECTIONS", "1000000"), "files", "allows");
    let few = ["sh", "-c", "ulimit -n 200 && exec \"$@\"", "sh"];
    warned(&settings.clone().under(&few), "files", "raise it (ulimit -n");

    let readable = fs::Permissions::from_mode(0o644);
    for secret in [".env", "key"] {
        let file = settings.dir().join(secret);
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, readable.clone()).unwrap();
    }
    fs::write(settings.dir().join("key"), "sk-sponsor-secret").unwrap();
    warned(&settings, "settings", "chmod 600 .env");
    let key_file = settings.clone().env("UPSTREAM_API_KEY", "").env("UPSTREAM_API_KEY_FILE", "key");
    warned(&key_file, "settings", "chmod 600 key");

    failed(&settings.clone().env("DATABASE_URL", "."), "database", ". is a directory");
    let nowhere = settings.clone().env("DATABASE_URL", "no/such/directory/quota.db");
    failed(&nowhere, "database", "must name a file in an existing directory");
    let path = settings.dir().join("quota.db");
    fs::write(&path, "no database, but some text of more than a few bytes").unwrap();
    failed(&settings, "database", "is not an SQLite database");
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (x)").unwrap();
    failed(&settings, "database", "is not a database of this program");
    fs::remove_file(&path).unwrap();
    database(&path, 50_000).await;
    fs::set_permissions(&path, readable).unwrap();
    warned(&settings, "database", "(mode 644): chmod 600 quota.db");
    fs::remove_file(settings.dir().join("quota.db.journal.1")).ok();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xff);
    fs::write(&path, bytes).unwrap();
    failed(&settings, "database", "is damaged");
}

#[tokio::test]
#[ignore = "needs root, to mount"]
async fn a_check_warns_of_a_database_in_memory() {
    let settings = sound("http://127.0.0.1:1/v1");
    let script = "mount -t tmpfs none . && cd \"$PWD\" && exec \"$@\"";
    let settings = settings.under(&["unshare", "--mount", "sh", "-c", script, "sh"]);
    let output = run(&settings, "check --offline");
    assert_found(&output, "warning", "database", "is in memory (tmpfs)");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test]
async fn print_config_names_the_source_of_each_setting_and_shows_no_secret() {
    let settings = GatewayCommand::bare()
        .env("ADMIN_TOKEN", "test-admin-token-0123456789")
        .env("METRICS_TOKEN", "test-metrics-token-0123456789")
        .env("DEEPSEEK_API_KEY", "sk-sponsor-secret")
        .env("HTTPS_PROXY", "http://user:secret-of-proxy@127.0.0.1:1")
        .env("DAILY_REQ_LIMIT", "50");
    fs::write(settings.dir().join(".env"), "DAILY_REQ_LIMIT=7\nSQLITE_PATH=own.db\n").unwrap();
    let output = run(&settings, "print-config --port 9000");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed = stdout(&output);
    for (name, source, value) in [
        ("PORT", "flag --port", "9000"),
        ("HOST", "default", "127.0.0.1"),
        ("DAILY_REQ_LIMIT", "environment DAILY_REQ_LIMIT", "50"),
        ("DATABASE_URL", ".env SQLITE_PATH", "own.db"),
        ("UPSTREAM_API_KEY", "environment DEEPSEEK_API_KEY", "••••"),
        ("UPSTREAM_PROXY", "environment HTTPS_PROXY", "••••"),
        ("METRICS_TOKEN", "environment METRICS_TOKEN", "••••"),
        ("CONTACT", "default", "none"),
        ("ADMIN_ALLOW", "default", "any"),
    ] {
        let line = printed.lines().find(|line| line.split_whitespace().next() == Some(name));
        let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
        assert_eq!(words.join(" "), format!("{name} {source} {value}"), "{printed}");
    }
    let json = run(&settings, "print-config --json");
    for text in [&printed, &stdout(&json)] {
        assert!(!text.contains("secret") && !text.contains("-token-"), "{text}");
    }
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let port = json["settings"].as_array().unwrap().iter().find(|one| one["name"] == "PORT");
    assert_eq!(port.unwrap()["source"], "default");
    assert_eq!(json["problem"], serde_json::Value::Null);

    let invalid = settings.env("DATABASE_URL", "postgres://user:secret@host:port/db");
    let output = run(&invalid, "print-config");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let printed = stdout(&output);
    assert!(printed.contains("postgres://••••@host:port/db"), "{printed}");
    assert!(printed.lines().last().unwrap().starts_with("invalid: DATABASE_URL: "), "{printed}");
    assert!(!printed.contains("secret"), "{printed}");
}

#[tokio::test]
#[ignore = "needs bash"]
async fn bash_completes_commands_and_flags() {
    let settings = GatewayCommand::bare().env("PORT", "none");
    let script = run(&settings, "completions bash");
    assert!(script.status.success(), "{script:?}");
    let complete = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let (last, at) = (words[words.len() - 1], words.len() - 1);
        let script = format!(
            "source completions.bash; COMP_WORDS=({line}); COMP_CWORD={at}
             _gateway gateway '{last}' '{}'; echo \"${{COMPREPLY[@]}}\"",
            words[at - 1]
        );
        let output = std::process::Command::new("bash")
            .args(["--norc", "-euc", &script])
            .current_dir(settings.dir())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        stdout(&output).trim().to_owned()
    };
    fs::write(settings.dir().join("completions.bash"), &script.stdout).unwrap();
    assert_eq!(complete("gateway ba"), "backup");
    assert_eq!(complete("gateway backup --repl"), "--replace");
    assert_eq!(complete("gateway health"), "healthcheck");
    for shell in ["zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&run(&settings, &format!("completions {shell}")));
        assert!(script.contains("healthcheck"), "{shell}: {script}");
    }
}

/// Returns the block of `docs/gateway.md` with this beginning; that of `docs/gateway.zh.md` is the same
/// except for comments.
fn documented(begin: &str) -> String {
    let documents =
        [include_str!("../../docs/gateway.md"), include_str!("../../docs/gateway.zh.md")];
    let [english, chinese] = documents.map(|document| {
        let mut blocks =
            document.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let block = blocks.find(|block| block.starts_with(begin)).expect("a block that begins so");
        let commands = block.lines().map(|line| line.split(" #").next().unwrap().trim_end());
        commands.collect::<Vec<_>>().join("\n")
    });
    assert_eq!(english, chinese);
    english
}

#[test]
#[ignore = "needs bash"]
fn the_documented_setup_completes_commands() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    fs::create_dir_all(home.join(".config/fish/completions")).unwrap();
    let path = format!(
        "{}:{}",
        gateway_binary().parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    // zsh's array of completion directories.
    let script = format!("fpath=(. .)\n{}", documented("source <(gateway completions"));
    let status = std::process::Command::new("bash")
        .args(["--norc", "-euc", &script])
        .current_dir(home)
        .env("HOME", home)
        .env("PATH", path)
        .status();
    assert!(status.unwrap().success());
    assert!(home.join("_gateway").exists());
    assert!(home.join(".config/fish/completions/gateway.fish").exists());
}

#[test]
fn cargo_installs_the_gateway_and_it_starts_in_an_empty_directory() {
    let command = documented("cargo install");
    let mut words = command.split_whitespace().skip(1);
    // Reuses what is built already, and does not use the network.
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let root = tempfile::tempdir().unwrap();
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(words.by_ref()).args(["--offline", "--quiet", "--root"]).arg(root.path());
    cargo.arg("--target-dir").arg(profile.parent().unwrap());
    if !profile.ends_with("release") {
        cargo.arg("--debug");
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in std::env::vars().filter(|(name, _)| set_for_tests(name)) {
        cargo.env_remove(name);
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let gateway = root.path().join("bin/gateway");
    let empty = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(&gateway)
        .args(["check", "--demo", "--port", "0"])
        .current_dir(empty.path())
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(stdout(&output).ends_with("0 failures, 1 warning\n"), "{output:?}");
    let mut child = std::process::Command::new(&gateway)
        .args(["--demo", "--port", "0"])
        .current_dir(empty.path())
        .env_clear()
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let first = lines.next().unwrap().unwrap();
    let url = first.strip_prefix("listening on").expect("where it listens").trim();
    let until = Instant::now() + crate::common::DEADLINE;
    let is_healthy = || {
        let mut healthcheck = std::process::Command::new(&gateway);
        healthcheck.args(["healthcheck", "--url", url]).output().unwrap().status.success()
    };
    while !is_healthy() {
        assert!(Instant::now() < until, "it does not serve");
    }
    send(&child, Signal::TERM);
    assert!(child.wait().unwrap().success());
    assert!(empty.path().join("quota.db").exists());
}
