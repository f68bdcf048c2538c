//! Copies of a gateway's database are exact, whatever goes on meanwhile, and go on exactly where they
//! are put in place.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use crate::common::volume::Volume;
use crate::common::{
    ADMIN_TOKEN, Client, Gateway, GatewayCommand, Upstream, chat_json, eventually, json_response,
};
use http::Method;
use rusqlite::Connection;
use serde_json::{Value, json};
use tower_quota::{
    admin::store::AdminStore,
    error::StoreErrorKind,
    store::sqlite::{SqliteOptions, SqliteStore},
};

const CHAT: &str = "/v1/chat/completions";

async fn upstream() -> Upstream {
    Upstream::start(|_| json_response(chat_json().to_string())).await
}

/// Runs `gateway` with these arguments; returns its exit code and what it printed.
fn run(command: &GatewayCommand, args: &[&str]) -> (i32, String) {
    let command = args.iter().fold(command.clone(), |command, arg| command.arg(arg));
    let output = command.output();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
}

fn back_up(command: &GatewayCommand, file: &Path) {
    let (code, printed) = run(command, &["backup", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{printed}");
    let mode = fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

async fn download(gateway: &Gateway, file: &Path) {
    let authorization = format!("Bearer {ADMIN_TOKEN}");
    let headers = [("authorization", authorization.as_str())];
    let url = gateway.url("/admin/backup");
    let response = Client::http1().send(Method::POST, &url, &headers, "").await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), "application/vnd.sqlite3");
    assert_eq!(response.header("content-length"), response.body.len().to_string());
    let disposition = response.header("content-disposition");
    assert!(disposition.starts_with("attachment; filename=\"quota-2"), "{disposition}");
    fs::write(file, &response.body).unwrap();
}

/// A gateway in a directory of its own, on a copy of this file.
fn start_on(upstream: &Upstream, file: &Path) -> Gateway {
    let command = GatewayCommand::before(upstream.base_url());
    fs::copy(file, command.dir().join("quota.db")).unwrap();
    command.start()
}

async fn post(gateway: &Gateway, key: &str) -> u16 {
    Client::http1().post_as(key, &gateway.url(CHAT), &json!({})).await.status.as_u16()
}

async fn post_many(gateway: &Gateway, key: &str, count: usize) {
    for _ in 0..count {
        assert_eq!(post(gateway, key).await, 200);
    }
}

async fn relabel(gateway: &Gateway, key: &str, label: &str) {
    let path = format!("/admin/keys/{key}");
    gateway.admin(Method::PATCH, &path, &json!({ "label": label })).await;
}

/// The names of the files in a directory that are neither of these, nor begin with `quota.db`.
fn strangers(dir: &Path, known: &[&str]) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names
        .map(|name| name.into_string().unwrap())
        .filter(|name| name.ends_with(".part") || !name.starts_with("quota.db"))
        .filter(|name| !known.contains(&name.as_str()))
        .collect()
}

/// One key's requests: how many were sent, and how many of them completed.
#[derive(Default)]
struct Traffic {
    key: String,
    sent: AtomicU64,
    completed: AtomicU64,
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "one task for each client")]
async fn a_copy_holds_what_was_completed_before_it_and_no_more_than_was_sent() {
    const LIMIT: u64 = 100;
    let upstream = upstream().await;
    let command = GatewayCommand::before(upstream.base_url());
    let mut gateway = command.start();
    let mut traffic = Vec::new();
    for limit in [LIMIT, 1_000_000, 0] {
        let key = gateway.create_key(json!({ "daily_limit": limit })).await;
        traffic.push(Arc::new(Traffic { key, ..Traffic::default() }));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for number in 0..12 {
        let (traffic, stop) = (traffic[number % 3].clone(), stop.clone());
        let url = gateway.url(CHAT);
        clients.push(tokio::spawn(async move {
            let client = Client::http1();
            while !stop.load(SeqCst) {
                traffic.sent.fetch_add(1, SeqCst);
                let status = client.post_as(&traffic.key, &url, &json!({})).await.status;
                traffic.completed.fetch_add(u64::from(status == 200), SeqCst);
            }
        }));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut copies = Vec::new();
    for round in 0..4 {
        let all = |count: fn(&Traffic) -> &AtomicU64| -> Vec<u64> {
            traffic.iter().map(|traffic| count(traffic).load(SeqCst)).collect()
        };
        let begun = all(|traffic| &traffic.completed).iter().sum::<u64>();
        eventually("more requests", async || {
            all(|traffic| &traffic.completed).iter().sum::<u64>() > begun + 50
        })
        .await;
        let label = format!("round {round}");
        let new = gateway.create_key(json!({ "label": &label })).await;
        relabel(&gateway, &traffic[0].key, &label).await;
        let (file, completed) =
            (dir.path().join(format!("{round}.db")), all(|traffic| &traffic.completed));
        if round % 2 == 0 {
            let (command, file) = (command.clone(), file.clone());
            tokio::task::spawn_blocking(move || back_up(&command, &file)).await.unwrap();
        } else {
            download(&gateway, &file).await;
        }
        copies.push((file, label, new, completed, all(|traffic| &traffic.sent)));
    }
    stop.store(true, SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    gateway.kill9();
    assert_eq!(strangers(command.dir(), &[]), [""; 0]);
    for (file, label, new, completed, sent) in copies {
        let restored = start_on(&upstream, &file);
        for (number, Traffic { key, .. }) in traffic.iter().map(|traffic| &**traffic).enumerate() {
            let used = restored.used(key).await;
            let (completed, sent) = (completed[number], sent[number]);
            println!("{label}: {completed} ≤ {used} ≤ {sent}");
            assert!(completed <= used && used <= sent, "{completed} ≤ {used} ≤ {sent}");
            let requests = &restored.usage(key).await["requests"];
            let [succeeded, failed] =
                ["succeeded", "failed"].map(|name| requests[name].as_u64().unwrap());
            assert_eq!(succeeded + failed, used, "{requests}");
        }
        let path = format!("/admin/keys/{}", traffic[0].key);
        let record = restored.admin(Method::GET, &path, &Value::Null).await;
        assert_eq!(record["label"], *label);
        let audit = restored.admin(Method::GET, "/admin/audit?limit=5", &Value::Null).await;
        assert!(audit["entries"].to_string().contains(&label), "{audit}");
        // It goes on where the copy ends, for all keys that it knows.
        post_many(&restored, &new, 1).await;
        let used = restored.used(&traffic[0].key).await;
        for _ in used..LIMIT {
            assert_eq!(post(&restored, &traffic[0].key).await, 200);
        }
        assert_eq!(post(&restored, &traffic[0].key).await, 429);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "one task for each client")]
async fn a_copy_after_kill_9_is_exact() {
    let responses = upstream().await;
    let command = GatewayCommand::before(responses.base_url());
    let mut gateway = command.start();
    let key = gateway.create_key(json!({"daily_limit": 50})).await;
    post_many(&gateway, &key, 7).await;
    gateway.kill9();
    // Three that nobody responses any more.
    let hanging = Upstream::holding(|_| json_response(chat_json().to_string())).await;
    let slow = command.clone().env("UPSTREAM_BASE_URL", hanging.base_url());
    let mut gateway = slow.start();
    for _ in 0..3 {
        let url = gateway.url(CHAT);
        let bearer = format!("Bearer {key}");
        tokio::spawn(async move {
            let headers = [("authorization", bearer.as_str())];
            let _ = Client::http1().open(Method::POST, &url, &headers, "{}").await;
        });
    }
    eventually("all at the upstream", async || hanging.calls().len() == 3).await;
    gateway.kill9();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("copy.db");
    // Typed in while nobody serves.
    let typed = "trial-key-manual-123";
    let database = Connection::open(command.dir().join("quota.db")).unwrap();
    database.execute("INSERT INTO api_keys (key, daily_limit) VALUES (?1, 5)", [typed]).unwrap();
    drop(database);
    let before = contents(command.dir());
    back_up(&command, &file);
    let in_clear = |bytes: Vec<u8>| bytes.windows(typed.len()).any(|part| part == typed.as_bytes());
    assert!(!in_clear(fs::read(&file).unwrap()), "a key in clear");
    assert_eq!(contents(command.dir()), before, "the files are only read");
    let restored = start_on(&responses, &file);
    assert_eq!(restored.used(&key).await, 10);
    let requests = &restored.usage(&key).await["requests"];
    assert_eq!((&requests["succeeded"], &requests["failed"]), (&json!(7), &json!(3)));
    post_many(&restored, typed, 1).await;
    post_many(&restored, &key, 40).await;
    assert_eq!(post(&restored, &key).await, 429);
    // What it was made of goes on by itself.
    assert_eq!(command.start().used(&key).await, 10);
}

/// The files of a directory, with fingerprints of what they hold.
fn contents(dir: &Path) -> Vec<(String, u64)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        // SQLite's index of the WAL holds nothing of its own, nor does an empty WAL.
        .filter(|(name, bytes)| {
            let is_index = name.ends_with("-shm");
            !(is_index || name.ends_with("-wal") && bytes.is_empty())
        })
        .map(|(name, bytes)| {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            (name, hasher.finish())
        })
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_continues_its_counts_and_ignores_old_segments() {
    let upstream = upstream().await;
    let command = GatewayCommand::before(upstream.base_url());
    let mut gateway = command.start();
    let key = gateway.create_key(json!({"daily_limit": 50})).await;
    post_many(&gateway, &key, 20).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("copy.db");
    back_up(&command, &file);
    post_many(&gateway, &key, 15).await;
    relabel(&gateway, &key, "later").await;

    let restore = ["restore", file.to_str().unwrap()];
    let (code, printed) = run(&command, &restore);
    assert_eq!(code, 2, "{printed}");
    assert!(printed.contains("in use by another process"), "{printed}");
    post_many(&gateway, &key, 1).await;
    gateway.kill9();

    let (code, printed) = run(&command, &restore);
    assert_eq!(code, 0, "{printed}");
    let kept: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix("kept: ")).collect();
    assert!(kept.iter().any(|name| name.ends_with("Z-wal")), "{printed}");
    assert!(kept.iter().any(|name| name.contains(".journal.")), "{printed}");
    assert_eq!(strangers(command.dir(), &[]), [""; 0]);
    let gateway = command.start();
    assert_eq!(gateway.used(&key).await, 20);
    post_many(&gateway, &key, 30).await;
    assert_eq!(post(&gateway, &key).await, 429);

    // What was there before is whole under its new name.
    let kept = command.clone().env("DATABASE_URL", kept[0]).start();
    assert_eq!(kept.used(&key).await, 36);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_beside_old_segments_prevents_the_start() {
    let upstream = upstream().await;
    let command = GatewayCommand::before(upstream.base_url());
    let mut gateway = command.start();
    let key = gateway.create_key(json!({"daily_limit": 50})).await;
    post_many(&gateway, &key, 2).await;
    let database = command.dir().join("quota.db");
    let file = command.dir().join("copy.db");
    back_up(&command, &file);
    post_many(&gateway, &key, 5).await;
    gateway.kill9();
    // By hand, with no regard to the journal.
    fs::rename(&file, &database).unwrap();
    fs::remove_file(command.dir().join("quota.db-wal")).unwrap();
    let printed = command.try_start().err().expect("a failed start");
    assert!(printed.contains("belongs to another database"), "{printed}");
    let (code, printed) = run(&command, &["restore", "--accept-loss"]);
    assert_eq!(code, 0, "{printed}");
    assert_eq!(command.start().used(&key).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_without_an_existing_database() {
    let upstream = upstream().await;
    let command = GatewayCommand::before(upstream.base_url());
    let gateway = command.start();
    let key = gateway.create_key(json!({"daily_limit": 50})).await;
    post_many(&gateway, &key, 3).await;
    let file = command.dir().join("copy.db");
    back_up(&command, &file);
    let elsewhere = GatewayCommand::before(upstream.base_url());
    let (code, printed) = run(&elsewhere, &["restore", file.to_str().unwrap()]);
    assert_eq!((code, printed.lines().count()), (0, 1), "{printed}");
    assert_eq!(elsewhere.start().used(&key).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_backup_is_not_restored() {
    let upstream = upstream().await;
    let command = GatewayCommand::before(upstream.base_url());
    let mut gateway = command.start();
    let key = gateway.create_key(json!({"daily_limit": 50})).await;
    post_many(&gateway, &key, 3).await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let good = path("good.db");
    back_up(&command, &good);
    gateway.kill9();
    let before = contents(command.dir());

    fs::write(path("text.db"), "no database at all\n".repeat(1000)).unwrap();
    fs::write(path("empty.db"), "").unwrap();
    let foreign = Connection::open(path("foreign.db")).unwrap();
    foreign.execute_batch("CREATE TABLE api_keys (key TEXT); PRAGMA user_version = 3").unwrap();
    fs::copy(&good, path("newer.db")).unwrap();
    let newer = Connection::open(path("newer.db")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    let mut bytes = fs::read(&good).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0x55);
    fs::write(path("damaged.db"), &bytes).unwrap();
    fs::write(path("cut.db"), &fs::read(&good).unwrap()[..middle]).unwrap();
    for (name, reason) in [
        ("text.db", "is not an SQLite database"),
        ("empty.db", "is not a database of this program"),
        ("foreign.db", "is not a database of this program"),
        ("newer.db", "was written by a newer version (schema 99)"),
        ("damaged.db", "is damaged"),
        ("cut.db", "is damaged"),
        ("missing.db", "cannot be read"),
    ] {
        let (code, printed) = run(&command, &["restore", path(name).to_str().unwrap()]);
        assert_eq!((code, printed.lines().count()), (2, 1), "{name}: {printed}");
        assert!(printed.contains(reason) && printed.contains(name), "{name}: {printed}");
    }
    assert_eq!(contents(command.dir()), before);
    assert_eq!(command.start().used(&key).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_files_are_not_overwritten() {
    let upstream = upstream().await;
    let command = GatewayCommand::before(upstream.base_url());
    let gateway = command.start();
    let key = gateway.create_key(json!({})).await;
    post_many(&gateway, &key, 1).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("copy.db");
    fs::write(&file, "mine").unwrap();
    let (code, printed) = run(&command, &["backup", file.to_str().unwrap()]);
    assert_eq!((code, printed.lines().count()), (2, 1), "{printed}");
    assert!(printed.contains("exists") && printed.contains("--replace"), "{printed}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    let (code, printed) = run(&command, &["backup", "--replace", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{printed}");
    assert_eq!(start_on(&upstream, &file).used(&key).await, 1);
    let (code, printed) = run(&command, &["backup", "--replace", "quota.db"]);
    assert_eq!(code, 2, "{printed}");
    assert!(printed.contains("is the database itself"), "{printed}");
    // Nor are the files beside it, which are part of it, and what is no file at all.
    for suffix in ["-wal", "-shm", "-journal", ".journal.1", ".journal.9", ".lock"] {
        let (code, printed) = run(&command, &["backup", "--replace", &format!("quota.db{suffix}")]);
        assert_eq!(code, 2, "{printed}");
        assert!(printed.contains("is a file of the database itself"), "{printed}");
    }
    let socket = dir.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let (code, printed) = run(&command, &["backup", "--replace", socket.to_str().unwrap()]);
    assert_eq!(code, 2, "{printed}");
    assert!(printed.contains("is not a regular file"), "{printed}");
    drop(listener);
    fs::remove_file(socket).unwrap();
    assert_eq!(gateway.used(&key).await, 1);
    assert_eq!(strangers(dir.path(), &["copy.db"]), [""; 0]);
    let nowhere = command.clone().env("DATABASE_URL", "nowhere.db");
    let (code, printed) = run(&nowhere, &["backup", dir.path().join("b.db").to_str().unwrap()]);
    assert_eq!(code, 2, "{printed}");
    assert_eq!(strangers(command.dir(), &[]), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_no_backup() {
    let upstream = upstream().await;
    let command = GatewayCommand::before(upstream.base_url());
    let mut gateway = command.start();
    let key = gateway.create_key(json!({"daily_limit": 50})).await;
    post_many(&gateway, &key, 5).await;
    gateway.kill9();
    let segment = command.dir().join("quota.db.journal.1");
    let mut bytes = fs::read(&segment).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last - 5] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let file = command.dir().join("copy.db");
    let (code, printed) = run(&command, &["backup", file.to_str().unwrap()]);
    assert_eq!((code, printed.lines().count()), (2, 1), "{printed}");
    assert!(printed.contains("quota.db.journal.1 is damaged"), "{printed}");
    assert!(!file.exists());
    assert_eq!(strangers(command.dir(), &[]), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_accepts_losses_and_lists_them() {
    let upstream = upstream().await;
    let command = GatewayCommand::before(upstream.base_url());
    let mut gateway = command.start();
    let (code, printed) = run(&command, &["restore", "--accept-loss"]);
    assert_eq!(code, 2, "while one runs: {printed}");
    let key = gateway.create_key(json!({"daily_limit": 50})).await;
    post_many(&gateway, &key, 5).await;
    // In the database's file, the rest in the WAL.
    let database = Connection::open(command.dir().join("quota.db")).unwrap();
    eventually("a checkpoint", async || {
        database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)) == Ok(0)
    })
    .await;
    drop(database);
    relabel(&gateway, &key, "lost").await;
    gateway.kill9();
    fs::remove_file(command.dir().join("quota.db-wal")).unwrap();
    let rejection = command.try_start().err().expect("a failed start");
    assert_eq!(rejection.lines().count(), 1, "{rejection}");
    assert!(rejection.contains("gateway restore --accept-loss"), "{rejection}");
    let (code, printed) = run(&command, &["backup", "copy.db"]);
    assert_eq!(code, 2, "{printed}");
    assert!(printed.contains("gateway restore --accept-loss"), "{printed}");
    let (code, printed) = run(&command, &["restore", "--accept-loss"]);
    assert_eq!(code, 0, "{printed}");
    let reported = printed.lines().find(|line| line.starts_with("lost: "));
    assert!(reported.is_some_and(|line| line.contains("older than its journal")), "{printed}");
    let (code, printed) = run(&command, &["restore", "--accept-loss"]);
    assert_eq!((code, printed.as_str()), (0, "nothing is lost\n"));
    let gateway = command.start();
    assert_eq!(gateway.used(&key).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_requires_a_token_and_contains_its_own_audit_entry() {
    let upstream = upstream().await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let url = gateway.url("/admin/backup");
    let rejected = Client::http1().send(Method::POST, &url, &[], "").await;
    assert_eq!((rejected.status.as_u16(), rejected.code()), (401, "missing_admin_token".into()));
    let response = Client::http1().get_as(ADMIN_TOKEN, &url).await;
    assert_eq!((response.status.as_u16(), response.header("allow")), (405, "POST"));
    let file = gateway.dir().join("copy");
    download(&gateway, &file).await;
    let copy = start_on(&upstream, &file);
    let audit = copy.admin(Method::GET, "/admin/audit", &Value::Null).await;
    assert_eq!(audit["entries"][0]["action"], "store.backup", "{audit}");
    assert_eq!(strangers(gateway.dir(), &["copy"]), [""; 0]);
}

#[tokio::test]
async fn one_copy_is_read_at_a_time_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(SqliteOptions::new(dir.path().join("quota.db"))).unwrap();
    let mut first = store.backup().await.unwrap();
    let part = first.next().await.unwrap();
    assert!(!part.is_empty() && part.len() as u64 <= first.length());
    let busy = store.backup().await.unwrap_err();
    assert_eq!(busy.kind(), StoreErrorKind::Busy);
    drop(first);
    let mut second = store.backup().await.unwrap();
    let mut length = 0;
    loop {
        match second.next().await.unwrap() {
            bytes if bytes.is_empty() => break,
            bytes => length += bytes.len() as u64,
        }
    }
    assert_eq!(length, second.length());
    drop(second);
    // One that nobody waits for.
    drop(tokio::time::timeout(std::time::Duration::ZERO, store.backup()).await);
    eventually("a copy after it", async || store.backup().await.is_ok()).await;
    eventually("no file of it", async || strangers(dir.path(), &[]).is_empty()).await;
    // What a killed process has left is removed at the next start.
    store.close().await.unwrap();
    drop(store);
    fs::write(dir.path().join("quota.db.backup.part"), "left").unwrap();
    SqliteStore::open(SqliteOptions::new(dir.path().join("quota.db"))).unwrap();
    assert_eq!(strangers(dir.path(), &[]), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, to mount"]
async fn a_full_disk_leaves_nothing_of_a_copy() {
    let upstream = upstream().await;
    let command = GatewayCommand::before(upstream.base_url());
    let gateway = command.start();
    let key = gateway.create_key(json!({})).await;
    post_many(&gateway, &key, 1).await;
    let volume = Volume::tmpfs(1);
    let file = volume.path("copy.db");
    let dir = file.parent().unwrap().to_owned();
    for room in [0, 64 << 10, 128 << 10] {
        volume.fill();
        let filler = fs::OpenOptions::new().write(true).open(volume.path("filler")).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - room).unwrap();
        let (code, printed) = run(&command, &["backup", file.to_str().unwrap()]);
        assert_eq!((code, printed.lines().count()), (2, 1), "{room}: {printed}");
        assert_eq!(strangers(&dir, &["filler"]), [""; 0], "{room}");
    }
    volume.free();
    back_up(&command, &file);
    assert_eq!(start_on(&upstream, &file).used(&key).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs sqlite3"]
async fn a_damaged_database_is_recovered_with_its_journal() {
    recovers_by(include_str!("../../docs/operations/backup.md")).await;
    recovers_by(include_str!("../../docs/operations/backup.zh.md")).await;
}

/// Follows the page's steps for a database that is damaged.
async fn recovers_by(page: &str) {
    let upstream = upstream().await;
    let command = GatewayCommand::before(upstream.base_url());
    let mut gateway = command.start();
    let key = gateway.create_key(json!({"daily_limit": 500})).await;
    post_many(&gateway, &key, 10).await;
    gateway.terminate();
    assert!(gateway.wait().success());
    let mut gateway = command.start();
    post_many(&gateway, &key, 20).await;
    gateway.kill9();
    let path = |name: &str| command.dir().join(name);
    // A page of an index: SQLite can make it again from the table.
    let root: u64 = Connection::open(path("quota.db"))
        .unwrap()
        .query_row(
            "SELECT rootpage FROM sqlite_master WHERE name = 'daily_usage_by_day'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let mut bytes = fs::read(path("quota.db")).unwrap();
    let at = (root as usize - 1) * 4096;
    bytes[at..at + 4096].fill(0x55);
    fs::write(path("quota.db"), bytes).unwrap();
    let (_, script) = page.split_once("run by tests/store/backup.rs -->\n```sh\n").unwrap();
    let (script, _) = script.split_once("```").unwrap();
    let shell = Command::new("sh")
        .args(["-ec", script])
        .current_dir(command.dir())
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(shell.success());
    let (code, printed) = run(&command, &["restore", "--accept-loss"]);
    assert_eq!(code, 0, "{printed}");
    let gateway = command.start();
    println!("{printed}");
    assert_eq!(gateway.used(&key).await, 30);
}
