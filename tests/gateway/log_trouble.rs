//! Failures of standard error and output do not affect requests, counts, or the shutdown at SIGTERM.

use std::{
    fs,
    fs::File,
    io::{PipeReader, Write, pipe},
    path::PathBuf,
    time::Duration,
};

use crate::common::{
    Client, Figures, Gateway, GatewayCommand, Upstream, Wire, chat_json, eventually, json_response,
};
use futures_util::future::join_all;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::common::volume::Volume;

/// The state of standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stderr {
    Closed,
    /// Every write fails with ENOSPC.
    Full,
    /// A pipe whose reader has ended: every write fails with EPIPE.
    DeadPipe,
    /// A full pipe without an active reader: a write blocks.
    StalledPipe,
}

const ALL: [Stderr; 4] = [Stderr::Closed, Stderr::Full, Stderr::DeadPipe, Stderr::StalledPipe];

/// A gateway that logs much, with such a standard error, and a key.
struct Scene {
    gateway: Gateway,
    upstream: Upstream,
    key: String,
    completed: u64,
    rejected: u64,
    /// Kept open and never read.
    _stalled: Option<PipeReader>,
}

/// A pipe that is full.
fn stalled_pipe() -> (PipeReader, impl Into<std::os::fd::OwnedFd>) {
    let (reader, writer) = pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    // Blocks until the reader is dropped.
    std::thread::spawn(move || filler.write_all(&vec![b'x'; 4 << 20]));
    (reader, writer)
}

impl Stderr {
    fn of(self, command: GatewayCommand) -> (GatewayCommand, Option<PipeReader>) {
        match self {
            Self::Closed => (command.under(&["sh", "-c", "exec \"$@\" 2>&-", "sh"]), None),
            Self::Full => (command.stderr(full()), None),
            Self::DeadPipe => (command.stderr(pipe().unwrap().1), None),
            Self::StalledPipe => {
                let (reader, writer) = stalled_pipe();
                (command.stderr(writer), Some(reader))
            }
        }
    }
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

impl Scene {
    async fn start(stderr: Stderr) -> Self {
        Self::with(stderr, "debug", |command| command).await
    }

    async fn with(
        stderr: Stderr,
        filter: &str,
        change: impl FnOnce(GatewayCommand) -> GatewayCommand,
    ) -> Self {
        let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
        let command = GatewayCommand::before(upstream.base_url()).env("RUST_LOG", filter);
        let (command, stalled) = stderr.of(change(command));
        let gateway = command.start();
        let key = gateway.create_key(json!({"daily_limit": 100_000})).await;
        Self { gateway, upstream, key, completed: 0, rejected: 0, _stalled: stalled }
    }

    /// Sends this many requests over eight connections, which must all get 200.
    async fn serve(&mut self, requests: usize) {
        let connection = || async {
            let mut wire = Wire::connect(self.gateway.address()).await.unwrap();
            for _ in 0..requests / 8 {
                let (status, _) = wire.post(&self.key, "{}").await.expect("a response");
                assert_eq!(status, 200);
            }
        };
        join_all((0..8).map(|_| connection())).await;
        self.completed += requests as u64;
        assert_eq!(self.get("/healthz").await, 200);
    }

    async fn get(&self, path: &str) -> u16 {
        Client::http1().get(&self.gateway.url(path)).await.status.as_u16()
    }

    /// Sends a request, which must get 200 or 503.
    async fn ask(&mut self) -> u16 {
        let url = self.gateway.url("/v1/chat/completions");
        let response = Client::http1().post_as(&self.key, &url, &json!({})).await;
        match (response.status.as_u16(), response.code().as_str()) {
            (200, _) => self.completed += 1,
            (503, "store_unavailable") => self.rejected += 1,
            _ => panic!("{response:?}"),
        }
        response.status.as_u16()
    }

    /// Sends requests until one gets this status.
    async fn until(&mut self, status: u16) {
        let until = std::time::Instant::now() + crate::common::DEADLINE;
        while self.ask().await != status {
            assert!(std::time::Instant::now() < until, "timed out: {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Service is back, SIGTERM ends the process, and all completed requests were counted.
    async fn finish(mut self) {
        self.until(200).await;
        self.serve(40).await;
        let ready = || async { self.get("/readyz").await == 200 };
        eventually("readiness", ready).await;
        self.gateway.terminate();
        let status = self.gateway.wait();
        assert!(status.success(), "{status:?}");
        self.gateway.restart();
        // What is rejected while the store fails may have been counted before.
        let counted = self.completed..=self.completed + self.rejected;
        let used = self.gateway.used(&self.key).await;
        assert!(counted.contains(&used), "{used} used, {counted:?}");
        let calls = self.upstream.count() as u64;
        assert!(counted.contains(&calls), "{calls} at the upstream, {counted:?}");
    }
}

async fn in_each(test: impl AsyncFn(Stderr)) {
    let test = &test;
    join_all(ALL.map(|stderr| async move {
        test(stderr).await;
        println!("{stderr:?}: as if nothing were");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_and_sigterm_ends_the_process() {
    in_each(async |stderr| {
        let mut scene = Scene::start(stderr).await;
        scene.serve(400).await;
        scene.finish().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_log_lines_are_counted() {
    in_each(async |stderr| {
        let mut scene = Scene::start(stderr).await;
        scene.serve(40).await;
        if matches!(stderr, Stderr::Full | Stderr::DeadPipe) {
            eventually("dropped lines", || async {
                let figures = Figures::of(&scene.gateway).await;
                figures.sum("tower_quota_log_lines_dropped_total", &[]) > 40.0
            })
            .await;
        }
        scene.finish().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_reader_finds_whole_lines_and_the_number_of_dropped_ones() {
    let (mut reader, stderr) = pipe().unwrap();
    let command = |upstream: &Upstream| {
        let command = GatewayCommand::before(upstream.base_url()).env("LOG_FORMAT", "json");
        command.env("RUST_LOG", "trace").stderr(stderr)
    };
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let gateway = command(&upstream).start();
    let key = gateway.create_key(json!({"daily_limit": 100_000})).await;
    let dropped = || async {
        let url = gateway.url("/v1/chat/completions");
        Client::http1().post_as(&key, &url, &json!({})).await;
        let figures = Figures::of(&gateway).await;
        figures.sum("tower_quota_log_lines_dropped_total", &[]) > 100.0
    };
    eventually("more lines than are held", dropped).await;
    let read = std::thread::spawn(move || {
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(&mut reader));
        lines.find_map(|line| {
            let line: Value = serde_json::from_str(&line.unwrap()).expect("a whole line");
            line["dropped"].as_u64()
        })
    });
    assert!(read.join().unwrap().is_some_and(|dropped| dropped > 100));
}

/// Holds the write lock for longer than the writer waits for it.
async fn with_lock(scene: &mut Scene) {
    let file = Connection::open(scene.gateway.dir().join("quota.db")).unwrap();
    file.busy_timeout(Duration::from_secs(5)).unwrap();
    file.execute_batch("BEGIN IMMEDIATE").unwrap();
    scene.until(503).await;
    assert_eq!(scene.get("/healthz").await, 200);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    file.execute_batch("ROLLBACK").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_store_is_served_again_by_itself() {
    for filter in ["error", "debug"] {
        in_each(async |stderr| {
            let mut scene = Scene::with(stderr, filter, |command| command).await;
            scene.serve(80).await;
            with_lock(&mut scene).await;
            scene.finish().await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_moved_away_is_used_again_once_it_is_back() {
    for filter in ["error", "warn"] {
        in_each(async |stderr| {
            let mut scene = Scene::with(stderr, filter, |command| command).await;
            scene.serve(80).await;
            // Twice: a thread that has died of the first would not notice the second.
            for _ in 0..2 {
                let file = scene.gateway.dir().join("quota.db");
                let away = scene.gateway.dir().join("away.db");
                fs::rename(&file, &away).unwrap();
                scene.until(503).await;
                assert_eq!(scene.get("/healthz").await, 200);
                fs::rename(&away, &file).unwrap();
                scene.until(200).await;
            }
            scene.finish().await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_cannot_be_written_does_not_fail_the_start() {
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let command = || GatewayCommand::before(upstream.base_url());
    let (_reader, stalled) = stalled_pipe();
    for mut gateway in [
        command().stdout(full()).start(),
        command().stdout(pipe().unwrap().1).start(),
        command().stdout(stalled).start(),
    ] {
        let key = gateway.create_key(json!({})).await;
        let url = gateway.url("/v1/chat/completions");
        assert_eq!(Client::http1().post_as(&key, &url, &json!({})).await.status, 200);
        gateway.terminate();
        assert!(gateway.wait().success());
    }
}

#[test]
fn a_failed_start_keeps_its_exit_status_without_an_output() {
    for stderr in ALL {
        let (command, _stalled) = stderr.of(GatewayCommand::new().env("PORT", "none"));
        assert_eq!(command.output().status.code(), Some(2), "{stderr:?}");
    }
}

/// Log and database on one file system that is full.
async fn on_a_full_disk(volume: &Volume, stderr: PathBuf) {
    let log = File::options().create(true).append(true).open(stderr).unwrap();
    let database = volume.path("quota.db");
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let command = GatewayCommand::before(upstream.base_url())
        .env("RUST_LOG", "debug")
        .env("DATABASE_URL", database.to_str().unwrap())
        .stderr(log);
    let gateway = command.start();
    let key = gateway.create_key(json!({"daily_limit": 100_000})).await;
    let mut scene = Scene { gateway, upstream, key, completed: 0, rejected: 0, _stalled: None };
    for _ in 0..3 {
        scene.serve(80).await;
        loop {
            volume.fill();
            if scene.ask().await == 503 {
                break;
            }
        }
        for _ in 0..20 {
            volume.fill();
            scene.ask().await;
        }
        assert_eq!(scene.get("/healthz").await, 200);
        volume.free();
        scene.until(200).await;
    }
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, to mount"]
async fn log_and_database_on_one_full_disk_recover_by_themselves() {
    let volume = Volume::tmpfs(8);
    on_a_full_disk(&volume, volume.path("gateway.log")).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, to mount"]
async fn a_full_disk_is_served_again_whatever_standard_error_is() {
    in_each(async |stderr| {
        let volume = Volume::tmpfs(8);
        let database = volume.path("quota.db");
        let database = database.to_str().unwrap().to_owned();
        let on_volume = |command: GatewayCommand| command.env("DATABASE_URL", database);
        let mut scene = Scene::with(stderr, "debug", on_volume).await;
        scene.serve(80).await;
        loop {
            volume.fill();
            if scene.ask().await == 503 {
                break;
            }
        }
        assert_eq!(scene.get("/healthz").await, 200);
        volume.free();
        scene.until(200).await;
        scene.finish().await;
    })
    .await;
}
