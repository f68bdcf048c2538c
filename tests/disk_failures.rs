//! What is promised when the disk fails: no answered request is uncounted, nothing reaches the
//! upstream once the failure is known, 503 in time, and service returns by itself.
//!
//! `TOWER_QUOTA_ALL_FAULTS=1` tries every n-th write from 1 to 200; otherwise every 13th.

mod common;
mod disk;

use std::{env, fs, path::Path, time::Duration};

use common::{Client, Gateway, GatewayCommand, Upstream, eventually, json_answer};
use disk::{Load, Mounted, Strace};
use http::Method;
use rusqlite::Connection;
use serde_json::json;

async fn upstream() -> Upstream {
    Upstream::start(|_| json_answer("{}")).await
}

fn gateway(upstream: &Upstream) -> GatewayCommand {
    GatewayCommand::new()
        .env("UPSTREAM_BASE_URL", upstream.base_url())
        .env("UPSTREAM_API_KEY", "sk-sponsor-secret")
        .env("RUST_LOG", "off")
}

async fn status(gateway: &Gateway, path: &str) -> u16 {
    Client::http1().get(&gateway.url(path)).await.status.as_u16()
}

/// While a failure lasts: 503 and `/readyz` in time, `/healthz` throughout, and no upstream call.
async fn the_gateway_is_closed(load: &Load, gateway: &Gateway, upstream: &Upstream) {
    load.is_refused().await;
    eventually("/readyz tells", || async { status(gateway, "/readyz").await == 503 }).await;
    load.is_quiet().await;
    let before = (upstream.count(), load.refused());
    eventually("many are refused", || async { load.refused() > before.1 + 50 }).await;
    assert_eq!(upstream.count(), before.0, "a call although the failure is known");
    assert_eq!(status(gateway, "/healthz").await, 200);
}

/// After a failure: service again, and counted is what was answered, or was under way.
async fn the_gateway_recovers(load: Load, gateway: &Gateway, what: &str) {
    load.is_served().await;
    eventually("/readyz tells", || async { status(gateway, "/readyz").await == 200 }).await;
    load.end_and_check(gateway, what).await;
}

fn assert_integrity(directory: &Path) {
    let file = Connection::open(directory.join("quota.db")).unwrap();
    let ok: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(ok, "ok");
}

/// The n-th of these calls in each thread fails, once, in a gateway of this durability.
async fn each_nth_call_fails(calls: &str, error: &str, durability: &str) {
    let upstream = upstream().await;
    let gateway = gateway(&upstream).env("DURABILITY", durability).start();
    let step = if env::var_os("TOWER_QUOTA_ALL_FAULTS").is_some() { 1 } else { 13 };
    for n in (1..=200).step_by(step) {
        let what = format!("{calls}: {error} at the {n}-th");
        let load = Load::start(&gateway).await;
        let fault = Strace::inject(&gateway, &format!("{calls}:error={error}:when={n}"));
        load.is_refused().await;
        fault.end();
        the_gateway_recovers(load, &gateway, &what).await;
    }
    assert_integrity(gateway.dir());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn a_write_that_fails_for_lack_of_space() {
    each_nth_call_fails("pwrite64", "ENOSPC", "process").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn a_write_that_fails_in_the_device() {
    each_nth_call_fails("pwrite64", "EIO", "power").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn a_sync_that_fails() {
    each_nth_call_fails("fdatasync,fsync", "EIO", "power").await;
}

async fn every_call_fails_for_a_while(calls: &str, error: &str) {
    let upstream = upstream().await;
    let gateway = gateway(&upstream).start();
    let load = Load::start(&gateway).await;
    let fault = Strace::inject(&gateway, &format!("{calls}:error={error}:when=1+"));
    the_gateway_is_closed(&load, &gateway, &upstream).await;
    fault.end();
    the_gateway_recovers(load, &gateway, error).await;
    assert_integrity(gateway.dir());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn a_file_system_that_turns_read_only() {
    every_call_fails_for_a_while("pwrite64,fdatasync,fsync,ftruncate,unlink", "EROFS").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn a_device_that_is_gone_for_a_while() {
    every_call_fails_for_a_while("pwrite64,fdatasync,fsync,ftruncate", "EIO").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and mount"]
async fn a_file_system_that_is_really_full() {
    let upstream = upstream().await;
    let mounted = Mounted::tmpfs("4m");
    let database = mounted.path().join("quota.db").display().to_string();
    let gateway = gateway(&upstream).env("DATABASE_URL", database).start();
    let load = Load::start(&gateway).await;
    load.goes_on_for(20).await;
    mounted.fill();
    the_gateway_is_closed(&load, &gateway, &upstream).await;
    mounted.free();
    the_gateway_recovers(load, &gateway, "a full file system").await;
    assert_integrity(mounted.path());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and mount"]
async fn a_read_only_file_system_refuses_the_start_in_one_line() {
    let upstream = upstream().await;
    let mounted = Mounted::tmpfs("4m");
    let database = mounted.path().join("quota.db").display().to_string();
    let command = gateway(&upstream).env("DATABASE_URL", database);
    drop(command.start());
    mounted.remount("ro");
    let output = command.output();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert_eq!(errors.trim().lines().count(), 1, "{errors}");
    assert!(errors.contains("quota.db"), "{errors}");
    mounted.remount("rw");
    drop(command.start());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_held_from_outside_for_ten_seconds() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream).start();
    let load = Load::start(&gateway).await;
    let other = Connection::open(gateway.dir().join("quota.db")).unwrap();
    other.busy_timeout(Duration::from_secs(5)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let since = std::time::Instant::now();
    the_gateway_is_closed(&load, &gateway, &upstream).await;
    tokio::time::sleep(Duration::from_secs(10).saturating_sub(since.elapsed())).await;
    assert_eq!(status(&gateway, "/readyz").await, 503);
    other.execute_batch("ROLLBACK").unwrap();
    the_gateway_recovers(load, &gateway, "a held lock").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_corrupted_is_never_an_unknown_key_nor_free_service() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream).start();
    let load = Load::start(&gateway).await;
    load.goes_on_for(20).await;
    // A copy that works, and then rubbish in every page but the first.
    let path = gateway.dir().join("quota.db");
    let copy = Connection::open(&path).unwrap();
    copy.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(copy);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[4096..].fill(0xa5);
    overwrite(&path, &bad);
    let log = gateway.dir().join("quota.db-wal");
    let length = fs::metadata(&log).map_or(0, |found| found.len());
    overwrite(&log, &vec![0xa5; length as usize]);
    the_gateway_is_closed(&load, &gateway, &upstream).await;
    assert_eq!(load.others(), 0, "neither 401 nor anything else but 200 and 503");
    drop(load);
}

/// Writes into the file that is there, as a program that has it open sees it.
fn overwrite(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    let mut file = fs::File::options().write(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_file_refuses_the_start_or_every_request() {
    let upstream = upstream().await;
    let command = gateway(&upstream);
    let mut running = command.start();
    let key = running.create_key(json!({"daily_limit": 5})).await;
    running.terminate();
    running.wait();
    let path = command.dir().join("quota.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100..].fill(0xa5);
    overwrite(&path, &bytes);
    let output = command.output();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(errors.contains("quota.db"), "{errors}");
    assert!(!errors.contains(&key), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_created_while_nothing_can_be_written_is_503() {
    let upstream = upstream().await;
    let gateway = gateway(&upstream).start();
    let other = Connection::open(gateway.dir().join("quota.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let token = format!("Bearer {}", common::ADMIN_TOKEN);
    let headers = [("authorization", token.as_str())];
    let url = gateway.url("/admin/keys");
    let answer = Client::http1().send(Method::POST, &url, &headers, "{}").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.code(), "store_unavailable");
}
