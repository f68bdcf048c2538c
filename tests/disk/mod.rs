//! Failing disks, and a load that goes on meanwhile.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::common::{Client, Gateway, eventually};

const CLIENTS: u64 = 4;

/// Four clients that send requests of one key until the end.
pub(crate) struct Load {
    key: String,
    seen: Arc<Seen>,
    clients: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    over: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
    others: AtomicU64,
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::SeqCst)
}

impl Load {
    /// Starts with a new key.
    pub(crate) async fn start(gateway: &Gateway) -> Self {
        let key = gateway.create_key(json!({"daily_limit": 1_000_000})).await;
        let (seen, mut clients) = (Arc::new(Seen::default()), JoinSet::new());
        for _ in 0..CLIENTS {
            let url = gateway.url("/v1/chat/completions");
            clients.spawn(send(key.clone(), url, seen.clone()));
        }
        let load = Self { key, seen, clients };
        load.is_served().await;
        load
    }

    pub(crate) fn refused(&self) -> u64 {
        count(&self.seen.refused)
    }

    /// Answers other than 200 and 503.
    pub(crate) fn others(&self) -> u64 {
        count(&self.seen.others)
    }

    /// Waits until so many more requests were answered, or one was refused.
    pub(crate) async fn goes_on_for(&self, requests: u64) {
        let until = count(&self.seen.answered) + requests * CLIENTS;
        let refused = self.refused();
        eventually("requests go on", || async {
            count(&self.seen.answered) >= until || self.refused() > refused
        })
        .await;
    }

    /// Waits until requests are refused.
    pub(crate) async fn is_refused(&self) {
        let before = self.refused();
        eventually("requests are refused", || async { self.refused() > before }).await;
    }

    /// Waits until what was under way when the failure struck has ended.
    pub(crate) async fn is_quiet(&self) {
        let before = self.refused();
        eventually("others are refused", || async { self.refused() > before + 4 * CLIENTS }).await;
    }

    /// Waits until requests are served.
    pub(crate) async fn is_served(&self) {
        let before = count(&self.seen.answered);
        eventually("requests are served", || async { count(&self.seen.answered) > before }).await;
    }

    /// Ends it. All that was answered is counted, and nothing that was not sent.
    pub(crate) async fn end_and_check(mut self, gateway: &Gateway, what: &str) {
        self.seen.over.store(true, Ordering::SeqCst);
        while self.clients.join_next().await.is_some() {}
        let usage = Client::http1().get_as(&self.key, &gateway.url("/usage")).await.json();
        let used = usage["used"].as_u64().unwrap();
        let (answered, sent) = (count(&self.seen.answered), count(&self.seen.sent));
        assert_eq!(self.others(), 0, "{what}: neither 200 nor 503");
        // Whoever was refused did not pay.
        assert_eq!(used, answered, "{what}: {used} counted, {answered} answered, {sent} sent");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.seen.over.store(true, Ordering::SeqCst);
    }
}

async fn send(key: String, url: String, seen: Arc<Seen>) {
    let client = Client::http1();
    while !seen.over.load(Ordering::SeqCst) {
        seen.sent.fetch_add(1, Ordering::SeqCst);
        let answer = client.post_as(&key, &url, &json!({})).await;
        match answer.status.as_u16() {
            200 => &seen.answered,
            503 if answer.code() == "store_unavailable" => &seen.refused,
            _ => &seen.others,
        }
        .fetch_add(1, Ordering::SeqCst);
    }
}

/// A fault that strace injects into a running gateway.
pub(crate) struct Strace(Child);

impl Strace {
    /// From now on: `pwrite64:error=ENOSPC:when=3`, for example.
    pub(crate) fn inject(gateway: &Gateway, fault: &str) -> Self {
        let calls = fault.split(':').next().unwrap();
        let mut strace = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={fault}"), "-p", &gateway.id().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed");
        let errors = strace.stderr.take().unwrap();
        let mut lines = BufReader::new(errors).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("attached")), "strace could not attach");
        std::thread::spawn(move || lines.for_each(drop));
        Self(strace)
    }

    /// The fault is over.
    pub(crate) fn end(mut self) {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A small file system of its own.
pub(crate) struct Mounted(TempDir);

impl Mounted {
    pub(crate) fn tmpfs(size: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let options = format!("size={size}");
        mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], directory.path());
        Self(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn remount(&self, mode: &str) {
        mount(&["-o", &format!("remount,{mode}")], self.path());
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Leaves no byte free.
    pub(crate) fn fill(&self) {
        use std::io::Write;
        let mut filler = fs::File::create(self.filler()).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    pub(crate) fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

fn mount(arguments: &[&str], path: &Path) {
    assert!(Command::new("mount").args(arguments).arg(path).status().unwrap().success());
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
