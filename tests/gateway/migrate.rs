//! `gateway migrate`: from a SQLite file to a PostgreSQL database.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use http::Method;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tower_quota::store::sqlite::SqliteStore;

use crate::common::{
    Client, Gateway, GatewayCommand, end, eventually, gateway_binary,
    postgres::{Postgres, psql},
};

/// A gateway on the file `quota.db`, and the URL of an empty database.
fn file_and_database() -> (GatewayCommand, String) {
    let command = GatewayCommand::new().arg("--demo").env("RUST_LOG", "warn");
    (command, Postgres::shared().create_database())
}

/// The same gateway on the database.
fn moved(command: &GatewayCommand, url: &str) -> GatewayCommand {
    command.clone().env("DATABASE_URL", url).env("JOURNAL_ACCEPT_VOLATILE", "true")
}

/// Starts it, and waits until it serves requests.
async fn start(command: &GatewayCommand) -> Gateway {
    let gateway = command.start();
    let url = gateway.url("/readyz");
    let is_ready = || async { Client::http1().get(&url).await.status == 200 };
    eventually("the gateway is ready", is_ready).await;
    gateway
}

fn migrate(command: &GatewayCommand, url: &str) -> GatewayCommand {
    ["migrate", "quota.db", url].into_iter().fold(command.clone(), GatewayCommand::arg)
}

/// Exit code, standard output and standard error.
type Printed = (Option<i32>, String, String);

fn run(command: &GatewayCommand) -> Printed {
    printed(command.spawn())
}

fn printed(child: Child) -> Printed {
    let output = end(child);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn assert_done(printed: &Printed, last_line: &str) {
    let (code, out, errors) = printed;
    assert_eq!(*code, Some(0), "{out}{errors}");
    assert!(out.lines().last().unwrap().contains(last_line), "{out}");
}

#[track_caller]
fn assert_failed(printed: &Printed, parts: &[&str]) {
    let (code, out, errors) = printed;
    assert_eq!((*code, out.as_str()), (Some(2), ""), "{errors}");
    // Lines of progress may be before it.
    let error = errors.lines().last().unwrap();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {errors}");
    }
}

async fn chat(gateway: &Gateway, key: &str) -> u16 {
    let body = json!({"model": "deepseek-chat", "messages": [{"role": "user", "content": "hi"}]});
    let response = Client::http1().post_as(key, &gateway.url("/v1/chat/completions"), &body).await;
    response.status.as_u16()
}

async fn get(gateway: &Gateway, path: &str) -> Value {
    gateway.admin(Method::GET, path, &Value::Null).await
}

fn tables(url: &str) -> String {
    psql(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_moved_gateway_continues_with_everything_that_the_killed_one_had() {
    let (command, url) = file_and_database();
    let mut gateway = start(&command).await;
    let post = async |path: &str, body: Value| gateway.admin(Method::POST, path, &body).await;
    let key = gateway.create_key(json!({"label": "ålice\\N", "daily_limit": 5})).await;
    let used_up = gateway.create_key(json!({"daily_limit": 1})).await;
    assert_eq!(chat(&gateway, &used_up).await, 200);
    post("/admin/reset-usage", json!({"key": used_up})).await;
    assert_eq!(chat(&gateway, &used_up).await, 200);
    let rotated = gateway.create_key(json!({"label": "rotated"})).await;
    let path = format!("/admin/keys/{rotated}/rotate");
    let current = post(&path, json!({"grace_seconds": 3600})).await["key"].clone();
    let deleted = gateway.create_key(json!({"label": "deleted"})).await;
    gateway.admin(Method::DELETE, &format!("/admin/keys/{deleted}"), &Value::Null).await;
    let claimed = gateway.create_key(json!({"label": "claimed"})).await;
    let claim = post(&format!("/admin/keys/{claimed}/claim"), json!({})).await;
    for _ in 0..2 {
        assert_eq!(chat(&gateway, &key).await, 200);
    }
    let settled = || async { gateway.usage(&key).await["requests"]["succeeded"] == 2 };
    eventually("the events are recorded", settled).await;
    let paths = ["/admin/audit", "/admin/keys?search=rotated", "/admin/keys?search=claimed"];
    let mut before = Vec::new();
    for path in paths {
        before.push(get(&gateway, path).await);
    }
    assert_eq!(chat(&gateway, &key).await, 200);
    gateway.kill9();
    let file = Connection::open(command.dir().join("quota.db")).unwrap();
    let typed_in = "INSERT INTO api_keys (key, label, daily_limit, created_at)
        VALUES ('trial-key-manual-123', '手动创建的密钥', 200, datetime('now')),
            ('trial-key-manual-456', 'two' || char(10, 9) || '\\', 'many', NULL)";
    file.execute_batch(typed_in).unwrap();
    drop(file);
    let files = || {
        let entries = fs::read_dir(command.dir()).unwrap().map(|entry| entry.unwrap().path());
        let contents = entries.map(|path| (path.clone(), fs::read(path).unwrap()));
        // Readers of SQLite note themselves in shared memory, and leave an empty WAL.
        let is_kept = |(path, bytes): &(PathBuf, Vec<u8>)| {
            !bytes.is_empty() && !path.to_str().unwrap().ends_with("-shm")
        };
        let mut files: Vec<_> = contents.filter(is_kept).collect();
        files.sort();
        files
    };
    let untouched = files();

    let dry_run = migrate(&command, &url).arg("--dry-run");
    assert_done(&run(&dry_run), " rows to move; a dry run, nothing was changed");
    assert_eq!(tables(&url), "0");
    assert!(files() == untouched, "a dry run changes no file");

    let (code, out, errors) = run(&migrate(&command, &url));
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{out}");
    assert!(out.starts_with("quota.db → postgres://"), "{out}");
    assert!(out.contains("  used 4, refunded 0, reset_used 1\n"), "{out}");
    assert!(out.ends_with("; all numbers and sums are equal\n"), "{out}");
    assert!(files() == untouched, "the file is only read");
    let in_clear = "SELECT count(*) FROM api_keys k WHERE k::text LIKE '%manual-123%'";
    assert_eq!(psql(&url, in_clear), "0");
    let again = "complete since an earlier run";
    assert_done(&run(&migrate(&command, &url)), again);
    assert_done(&run(&dry_run), again);

    let gateway = start(&moved(&command, &url)).await;
    assert_done(&run(&migrate(&command, &url)), again);
    for (path, before) in paths.into_iter().zip(before) {
        assert_eq!(get(&gateway, path).await, before, "{path}");
    }
    assert_eq!(gateway.used(&key).await, 3);
    assert_eq!(gateway.usage(&key).await["label"], "ålice\\N");
    for status in [200, 200, 429] {
        assert_eq!(chat(&gateway, &key).await, status);
    }
    assert_eq!(chat(&gateway, &used_up).await, 429);
    for (key, status) in [
        (rotated.as_str(), 200),
        (current.as_str().unwrap(), 200),
        (&deleted, 401),
        ("trial-key-manual-123", 200),
        ("trial-key-manual-456", 503),
    ] {
        assert_eq!(chat(&gateway, key).await, status, "{key}");
    }
    let token = claim["url"].as_str().unwrap().rsplit_once('#').unwrap().1;
    let open = json!({"token": token, "open": true}).to_string();
    let json = [("content-type", "application/json")];
    let opened = Client::http1().send(Method::POST, &gateway.url("/claim"), &json, open).await;
    assert_eq!(chat(&gateway, opened.json()["key"].as_str().unwrap()).await, 200);
    let label = "SELECT label FROM api_keys WHERE daily_limit = -1";
    assert_eq!(psql(&url, label), "two\n\t\\");
    // Numbers go on behind those of the file.
    gateway.create_key(json!({"label": "new"})).await;
    let last = "SELECT label FROM api_keys ORDER BY seq DESC LIMIT 1";
    assert_eq!(psql(&url, last), "new");
    let entries = get(&gateway, "/admin/audit").await;
    assert_eq!(entries["entries"][0]["action"], "key.create", "{entries}");
}

/// Fills a file with requests, whose number decides how long moving them takes.
fn fill(directory: &Path, requests: u32) {
    let path = directory.join("quota.db");
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        runtime.block_on(async { SqliteStore::open(&path).unwrap().close().await.unwrap() });
    });
    let rows = format!(
        "INSERT INTO api_keys (id, key, label) VALUES ('key_1', 'trial-key-manual-123', 'one');
         INSERT INTO daily_usage (key_id, day, used) VALUES ('key_1', '2026-11-01', {requests});
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {requests})
         INSERT INTO requests (key_id, at, method, path, outcome, units, refunded, bytes_in, bytes_out, duration)
         SELECT 'key_1', 1764000000000 + n, 'POST', '/v1/chat/completions', 'succeeded', 1, n % 2, n, 2, 3 FROM n"
    );
    Connection::open(path).unwrap().execute_batch(&rows).unwrap();
}

/// Starts a migration, and sends it a signal once more than this number of requests has been moved.
async fn stopped(command: &GatewayCommand, url: &str, signal: Signal, moved: i64) -> Printed {
    let child = migrate(command, url).spawn();
    let has_moved = || async {
        let query =
            "SELECT coalesce(max(moved), 0) FROM sqlite_migration WHERE moving = 'requests'";
        tables(url) != "0" && psql(url, query).parse::<i64>().unwrap() > moved
    };
    eventually("requests are moved", has_moved).await;
    kill_process(Pid::from_child(&child), signal).unwrap();
    printed(child)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_migration_that_is_stopped_or_killed_goes_on_and_no_gateway_starts_before() {
    const REQUESTS: u32 = 80_000;
    let (command, url) = file_and_database();
    fill(command.dir(), REQUESTS);
    let (code, out, errors) = stopped(&command, &url, Signal::INT, 0).await;
    assert_eq!((code, out.as_str()), (Some(130), ""), "{errors}");
    assert!(errors.ends_with("stopped: the same command goes on with the rest\n"), "{errors}");

    let on_database = moved(&command, &url);
    let text = on_database.try_start().err().expect("it does not start");
    assert!(
        text.contains("has only a part of ") && text.contains("quota.db: the migration"),
        "{text}"
    );
    let (code, out, _) = run(&on_database.clone().env("PORT", "8787").arg("check"));
    assert!(code == Some(1) && out.contains("has only a part of "), "{out}");
    // It fails unless the trigger keeps out a gateway that has checked the database before the migration began.
    let enter = "DO $$ BEGIN
            INSERT INTO nodes (id) VALUES ('\\x00');
            RAISE 'it has entered' USING ERRCODE = 'assert_failure';
        EXCEPTION WHEN raise_exception THEN NULL;
        END $$";
    psql(&url, enter);

    let query = "SELECT moved FROM sqlite_migration";
    let moved: i64 = psql(&url, query).parse().unwrap();
    let (code, out, _) = stopped(&command, &url, Signal::KILL, moved).await;
    assert_eq!((code, out.as_str()), (None, ""), "killed while it moves rows");
    assert_eq!(psql(&url, "SELECT count(*) FROM requests"), psql(&url, query));

    let file = Connection::open(command.dir().join("quota.db")).unwrap();
    file.execute_batch("UPDATE api_keys SET label = 'other'").unwrap();
    let changed = ["has a part of ", "the contents are other ones now"];
    assert_failed(&run(&migrate(&command, &url)), &changed);
    file.execute_batch("UPDATE api_keys SET label = 'one'").unwrap();
    drop(file);
    let dry_run = migrate(&command, &url).arg("--dry-run");
    assert_done(&run(&dry_run), " rows left to move; a dry run, nothing was changed");

    assert_done(&run(&migrate(&command, &url)), " of them by an earlier run; all numbers and sums");
    let sums = "SELECT count(*), sum(refunded::int), sum(bytes_in), max(number) FROM requests";
    let n = u64::from(REQUESTS);
    assert_eq!(psql(&url, sums), format!("{n}|{}|{}|{n}", n / 2, n * (n + 1) / 2));
    let left = fs::read_dir(command.dir()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().ends_with(".part")));
    let gateway = start(&on_database).await;
    assert_eq!(chat(&gateway, "trial-key-manual-123").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_migration_that_cannot_begin_says_why() {
    let (command, url) = file_and_database();
    let none = migrate(&command, &url);
    assert_failed(&run(&none), &["quota.db cannot be read"]);
    let mut gateway = start(&command).await;
    let key = gateway.create_key(json!({"daily_limit": 1})).await;
    assert_failed(&run(&none), &["quota.db is in use", "stop that gateway first"]);
    assert_eq!(tables(&url), "0");
    assert_done(&run(&none.clone().arg("--dry-run")), "a dry run, nothing was changed");
    assert_eq!(chat(&gateway, &key).await, 200, "a dry run disturbs no gateway");
    gateway.terminate();
    gateway.wait();

    let to_file = command.clone().arg("migrate").arg("quota.db");
    assert_failed(&run(&to_file), &["DATABASE_URL: ", "not the URL of a PostgreSQL database"]);
    let foreign = Postgres::shared().create_database();
    psql(&foreign, "CREATE TABLE api_keys (key text)");
    assert_failed(&run(&migrate(&command, &foreign)), &["tables of another program"]);
    let used = Postgres::shared().create_database();
    let mut other = start(&moved(&command, &used)).await;
    other.terminate();
    other.wait();
    for arguments in [&[][..], &["--dry-run"]] {
        let command = migrate(&command, &used);
        let command = arguments.iter().fold(command, |command, word| command.arg(word));
        assert_failed(&run(&command), &["is not empty: it has rows in nodes", "empty database"]);
    }
    let by_settings = moved(&to_file, &url).arg("--dry-run");
    assert_done(&run(&by_settings), "a dry run, nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn the_commands_of_the_guide_move_a_file() {
    let guides = [
        include_str!("../../docs/guides/postgresql.md"),
        include_str!("../../docs/guides/postgresql.zh.md"),
    ];
    for guide in guides {
        let block = guide.split("run by tests/gateway/migrate.rs -->\n```sh\n").nth(1).unwrap();
        let commands = block.split("```").next().unwrap();
        let (command, url) = file_and_database();
        fill(command.dir(), 10);
        let programs = gateway_binary().parent().unwrap().to_str().unwrap();
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-euc", commands]).current_dir(command.dir());
        let output = shell.env("PATH", path).env("DATABASE_URL", &url).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{printed}");
        assert!(
            printed.ends_with("complete: 12 rows; all numbers and sums are equal\n"),
            "{printed}"
        );
    }
}
