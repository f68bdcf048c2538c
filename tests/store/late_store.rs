//! A start whose database cannot be written yet serves what needs none, and everything once it can.
//! One that trying again does not help ends at once.

use std::{fs, path::Path};

use crate::common::{
    ADMIN_TOKEN, Client, Gateway, GatewayCommand, Upstream, chat_json, eventually, json_response,
};
use rusqlite::Connection;
use serde_json::json;

use crate::common::volume::Volume;

async fn upstream() -> Upstream {
    Upstream::start(|_| json_response(chat_json().to_string())).await
}

fn lock(file: &Path) -> Connection {
    let other = Connection::open(file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

/// It lives, and rejects what needs the store.
async fn is_degraded(gateway: &Gateway) {
    let client = Client::http1();
    let health = client.get(&gateway.url("/healthz")).await;
    assert_eq!(health.status, 200, "{health:?}");
    assert!(health.text().starts_with(r#"{"ok":true"#));
    let ready = client.get(&gateway.url("/readyz")).await;
    assert_eq!((ready.status.as_u16(), &ready.json()["ok"]), (503, &json!(false)));
    for path in ["/v1/chat/completions", "/admin/keys", "/usage"] {
        let rejected = client.post_as(ADMIN_TOKEN, &gateway.url(path), &json!({})).await;
        assert_eq!(rejected.status, 503, "{path}: {rejected:?}");
        assert_eq!(rejected.code(), "store_unavailable");
        assert_eq!(rejected.header("retry-after"), "1");
        assert!(!rejected.header("x-request-id").is_empty());
    }
}

async fn is_served(gateway: &Gateway, key: &str) {
    let ready = || async { Client::http1().get(&gateway.url("/readyz")).await.status == 200 };
    eventually("readiness", ready).await;
    let url = gateway.url("/v1/chat/completions");
    assert_eq!(Client::http1().post_as(key, &url, &json!({})).await.status, 200);
}

#[tokio::test]
async fn a_start_while_the_write_lock_is_held_serves_once_it_is_free() {
    let upstream = upstream().await;
    let mut gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({})).await;
    is_served(&gateway, &key).await;
    let file = gateway.dir().join("quota.db");
    let other = lock(&file);
    gateway.restart();
    for _ in 0..3 {
        is_degraded(&gateway).await;
    }
    assert_eq!(upstream.count(), 1);
    other.execute_batch("ROLLBACK").unwrap();
    is_served(&gateway, &key).await;
    assert_eq!(gateway.used(&key).await, 2);
    let segments = fs::read_dir(gateway.dir()).unwrap().flatten();
    let segments = segments.filter(|file| file.file_name().to_str().unwrap().contains(".journal."));
    assert_eq!(segments.count(), 1, "attempts leave nothing behind");
    gateway.terminate();
    assert!(gateway.wait().success());
}

#[tokio::test]
async fn a_start_that_never_gets_its_store_ends_on_sigterm() {
    let command = GatewayCommand::new().arg("--demo");
    let other = lock(&command.dir().join("quota.db"));
    let mut gateway = command.start();
    is_degraded(&gateway).await;
    gateway.terminate();
    assert!(gateway.wait().success());
    drop(other);
}

#[tokio::test]
async fn a_permanent_error_ends_a_start_that_is_retrying() {
    let command = GatewayCommand::new().arg("--demo");
    let other = lock(&command.dir().join("quota.db"));
    let mut gateway = command.start();
    is_degraded(&gateway).await;
    other.execute_batch("PRAGMA user_version = 999; COMMIT").unwrap();
    assert_eq!(gateway.wait().code(), Some(2));
    eventually("the reason", || async { gateway.printed().contains("newer version") }).await;
}

#[test]
fn a_foreign_or_newer_file_damage_and_a_bad_path_end_the_start() {
    let prepared = |prepare: &dyn Fn(&Path)| {
        let command = GatewayCommand::new().arg("--demo");
        prepare(&command.dir().join("quota.db"));
        command
    };
    let sql = |sql: &'static str| {
        move |file: &Path| Connection::open(file).unwrap().execute_batch(sql).unwrap()
    };
    for (command, says) in [
        (prepared(&sql("CREATE TABLE other(x)")), "another program"),
        (prepared(&sql("PRAGMA user_version = 999")), "newer version"),
        (prepared(&|file| fs::write(file, [7; 4096]).unwrap()), "not a database"),
        (prepared(&|file| fs::create_dir(file).unwrap()), "cannot be opened"),
        (
            GatewayCommand::new().env("DATABASE_URL", "/no/such/directory/quota.db"),
            "cannot be opened",
        ),
    ] {
        let output = command.output();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(says) && stderr.lines().count() == 1, "{stderr}");
    }
}

#[tokio::test]
#[ignore = "needs root, to mount"]
async fn a_start_on_a_full_disk_serves_once_there_is_room() {
    let upstream = upstream().await;
    let volume = Volume::tmpfs(4);
    let database = volume.path("quota.db");
    let command =
        GatewayCommand::before(upstream.base_url()).env("DATABASE_URL", database.to_str().unwrap());
    // The first start has no database, the second one has.
    let mut key = None;
    for used in 0..2 {
        volume.fill();
        let mut gateway = command.start();
        for _ in 0..5 {
            is_degraded(&gateway).await;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        volume.free();
        let ready = || async { Client::http1().get(&gateway.url("/readyz")).await.status == 200 };
        eventually("readiness", ready).await;
        let known = match key.take() {
            Some(known) => known,
            None => gateway.create_key(json!({})).await,
        };
        assert_eq!(gateway.used(&known).await, used);
        is_served(&gateway, &known).await;
        key = Some(known);
        let files = fs::read_dir(database.parent().unwrap()).unwrap().flatten();
        let names: Vec<_> = files.map(|file| file.file_name().into_string().unwrap()).collect();
        assert_eq!(names.iter().filter(|name| name.contains(".journal.")).count(), 1, "{names:?}");
        assert!(!names.iter().any(|name| name.ends_with(".probe")), "{names:?}");
        gateway.kill9();
    }
}
