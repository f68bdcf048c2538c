//! Files that a killed gateway has left are damaged, cut, or replaced by older ones.
//!
//! Completed requests are there at the next start, or that start fails, or the log names the
//! bytes that were dropped. `TOWER_QUOTA_FLIPS` sets how many times that is tried (40), and
//! `TOWER_QUOTA_SEED` repeats a run's choices.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use http::Method;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    common::{Client, Gateway, Random, Upstream, chat_json, eventually, json_response},
    files::{copy, live_segment},
    scene::command,
};

/// What a killed gateway has left, and what it has completed.
struct Remains {
    dir: TempDir,
    upstream: Upstream,
    key: String,
    completed: u64,
    label: String,
}

fn database(dir: &Path) -> PathBuf {
    dir.join("quota.db")
}

fn wal(dir: &Path) -> PathBuf {
    dir.join("quota.db-wal")
}

async fn post(gateway: &Gateway, key: &str) {
    let url = gateway.url("/v1/chat/completions");
    assert_eq!(Client::http1().post_as(key, &url, &json!({})).await.status, 200);
}

async fn relabel(gateway: &Gateway, key: &str, label: &str) {
    let path = format!("/admin/keys/{key}");
    gateway.admin(Method::PATCH, &path, &json!({ "label": label })).await;
}

impl Remains {
    /// Requests and changes of a key, the last of which are in the WAL and in the journal.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
        let mut gateway = command(&upstream, &database(dir.path())).start();
        let key = gateway.create_key(json!({"daily_limit": 500})).await;
        let (mut completed, mut label) = (0, String::new());
        for round in 0..12 {
            for _ in 0..4 {
                post(&gateway, &key).await;
                completed += 1;
            }
            label = format!("round {round}");
            relabel(&gateway, &key, &label).await;
        }
        for _ in 0..4 {
            post(&gateway, &key).await;
            completed += 1;
        }
        gateway.kill9();
        Self { dir, upstream, key, completed, label }
    }

    fn copied(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        copy(self.dir.path(), dir.path());
        dir
    }

    /// Starts on these files: what the rejection says, or else nothing may be missing.
    async fn start(&self, dir: &Path) -> Result<Gateway, String> {
        let gateway = command(&self.upstream, &database(dir)).try_start()?;
        let used = gateway.used(&self.key).await;
        let path = format!("/admin/keys/{}", self.key);
        let record = gateway.admin(Method::GET, &path, &Value::Null).await;
        let label = record["label"].as_str().unwrap().to_owned();
        let is_whole = used >= self.completed && label == self.label;
        assert!(
            is_whole || gateway.printed().contains("journal tail dropped"),
            "{used} of {} counted, {label:?} for {:?}, and not a word: {}",
            self.completed,
            self.label,
            gateway.printed()
        );
        Ok(gateway)
    }

    async fn rejection(&self, dir: &Path) -> String {
        let printed = self.start(dir).await.err().expect("a failed start");
        assert_eq!(printed.trim_end().lines().count(), 1, "{printed}");
        assert!(printed.contains("quota.db"), "{printed}");
        printed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_bit_and_no_cut_silently_loses_a_completed_request() {
    let mut random = Random::seeded("flips and cuts");
    let remains = Remains::new().await;
    let (mut rejected, mut whole) = (0, 0);
    let flips = env::var("TOWER_QUOTA_FLIPS").map_or(40, |flips| flips.parse().unwrap());
    for _ in 0..flips {
        let dir = remains.copied();
        let file = match random.below(5) {
            0..2 => wal(dir.path()),
            2..4 => live_segment(&database(dir.path())),
            _ => database(dir.path()),
        };
        let mut bytes = fs::read(&file).unwrap();
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
        let (place, cuts) = (random.below(written) as usize, random.below(4) == 0);
        // SQLite does not see each bit of its own pages, but where the file ends.
        if cuts || file == database(dir.path()) {
            bytes.truncate(place);
        } else {
            bytes[place] ^= 1 << random.below(8);
        }
        fs::write(&file, bytes).unwrap();
        println!("{} at {place}, cut: {cuts}", file.display());
        match remains.start(dir.path()).await {
            Ok(_) => whole += 1,
            Err(_) => rejected += 1,
        }
    }
    println!("{rejected} failed starts, {whole} with all completed requests");
    assert!(rejected > 0 && whole > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_older_than_its_journal_prevents_the_start() {
    let remains = Remains::new().await;
    let dir = remains.copied();
    // The last commit of the WAL is damaged, so SQLite goes on with the one before.
    let mut bytes = fs::read(wal(dir.path())).unwrap();
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    fs::write(wal(dir.path()), bytes).unwrap();
    // A rejection changes no file: the next start is rejected as well.
    for _ in 0..2 {
        let printed = remains.rejection(dir.path()).await;
        assert!(printed.contains("is older than its journal"), "{printed}");
    }
    fs::copy(wal(remains.dir.path()), wal(dir.path())).unwrap();
    remains.start(dir.path()).await.unwrap().kill9();
    let dir = remains.copied();
    fs::remove_file(wal(dir.path())).unwrap();
    remains.rejection(dir.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_beside_a_newer_journal_prevents_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let mut gateway = command(&upstream, &database(dir.path())).start();
    let key = gateway.create_key(json!({"daily_limit": 500})).await;
    for _ in 0..20 {
        post(&gateway, &key).await;
    }
    let backup = dir.path().join("backup");
    let file = Connection::open(database(dir.path())).unwrap();
    file.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    drop(file);
    for round in 0..3 {
        for _ in 0..14 {
            post(&gateway, &key).await;
        }
        relabel(&gateway, &key, &format!("round {round}")).await;
    }
    gateway.kill9();
    fs::rename(backup, database(dir.path())).unwrap();
    fs::remove_file(wal(dir.path())).unwrap();
    let remains = Remains { dir, upstream, key, completed: 62, label: "round 2".to_owned() };
    let printed = remains.rejection(remains.dir.path()).await;
    assert!(printed.contains("is older than its journal"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_clean_shutdown_the_database_may_be_copied_alone() {
    let mut remains = Remains::new().await;
    let mut gateway = remains.start(remains.dir.path()).await.unwrap();
    gateway.terminate();
    assert!(gateway.wait().success());
    let copied = tempfile::tempdir().unwrap();
    fs::copy(database(remains.dir.path()), database(copied.path())).unwrap();
    for _ in 0..2 {
        let mut gateway = remains.start(copied.path()).await.unwrap();
        post(&gateway, &remains.key).await;
        remains.completed += 1;
        gateway.terminate();
        assert!(gateway.wait().success());
    }
    // An earlier copy is older than the journal that has gone on.
    remains.start(copied.path()).await.unwrap().kill9();
    fs::copy(database(remains.dir.path()), database(copied.path())).unwrap();
    let _ = fs::remove_file(wal(copied.path()));
    let printed = remains.rejection(copied.path()).await;
    assert!(printed.contains("is older than its journal"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_another_database_prevents_the_start() {
    let (one, other) = (Remains::new().await, Remains::new().await);
    let dir = one.copied();
    let journal = live_segment(&database(dir.path()));
    fs::copy(live_segment(&database(other.dir.path())), journal).unwrap();
    let printed = one.rejection(dir.path()).await;
    assert!(printed.contains("belongs to another database"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_older_than_its_database_prevents_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let mut gateway = command(&upstream, &database(dir.path())).start();
    let key = gateway.create_key(json!({"daily_limit": 500})).await;
    let journal = live_segment(&database(dir.path()));
    let older = fs::read(&journal).unwrap();
    for _ in 0..20 {
        post(&gateway, &key).await;
    }
    // The report has all of them read into the database.
    assert_eq!(gateway.usage(&key).await["requests"]["succeeded"], 20);
    gateway.kill9();
    fs::write(&journal, older).unwrap();
    let remains = Remains { dir, upstream, key, completed: 20, label: String::new() };
    let printed = remains.rejection(remains.dir.path()).await;
    assert!(printed.contains("does not hold what the database has read of it"), "{printed}");
}

/// An older copy of the database comes to lie beside the WAL and the journal of today.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_database_under_a_newer_wal_prevents_the_start() {
    let mut remains = Remains::new().await;
    let mut gateway = remains.start(remains.dir.path()).await.unwrap();
    gateway.terminate();
    assert!(gateway.wait().success());
    let older = fs::read(database(remains.dir.path())).unwrap();
    let mut gateway = remains.start(remains.dir.path()).await.unwrap();
    relabel(&gateway, &remains.key, "in the file").await;
    // What was in the WAL is in the file alone once that is emptied, as it is now and then.
    let file = Connection::open(database(remains.dir.path())).unwrap();
    let is_busy = || file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    eventually("an empty WAL", || async { is_busy() == Ok(0) }).await;
    remains.label = "last".to_owned();
    relabel(&gateway, &remains.key, &remains.label).await;
    gateway.kill9();
    let newer = fs::read(database(remains.dir.path())).unwrap();
    fs::write(database(remains.dir.path()), older).unwrap();
    for _ in 0..2 {
        let printed = remains.rejection(remains.dir.path()).await;
        assert!(printed.contains("is older than its WAL"), "{printed}");
    }
    fs::write(database(remains.dir.path()), newer).unwrap();
    remains.start(remains.dir.path()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_wal_over_a_newer_database_prevents_the_start() {
    let remains = Remains::new().await;
    let dir = remains.copied();
    let older = [wal(dir.path()), live_segment(&database(dir.path()))];
    let older = older.map(|file| (fs::read(&file).unwrap(), file));
    let segment = older[1].1.clone();
    let mut gateway = remains.start(dir.path()).await.unwrap();
    relabel(&gateway, &remains.key, "later").await;
    gateway.terminate();
    assert!(gateway.wait().success());
    assert_ne!(live_segment(&database(dir.path())), segment);
    fs::remove_file(live_segment(&database(dir.path()))).unwrap();
    for (bytes, file) in older {
        fs::write(file, bytes).unwrap();
    }
    let printed = command(&remains.upstream, &database(dir.path())).try_start().err();
    assert!(printed.unwrap().contains("quota.db-wal is older than its database"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_changes_no_file() {
    let remains = Remains::new().await;
    let in_copy = |harm: fn(&Path)| {
        let (remains, dir) = (&remains, remains.copied());
        async move {
            let before = |dir: &Path| {
                let files = [database(dir), wal(dir), live_segment(&database(dir))];
                files.map(|file| fs::read(file).ok())
            };
            let whole = before(dir.path());
            harm(dir.path());
            remains.rejection(dir.path()).await;
            copy(remains.dir.path(), &dir.path().join("whole"));
            let harmed = tempfile::tempdir().unwrap();
            copy(remains.dir.path(), harmed.path());
            harm(harmed.path());
            let left = [database(dir.path()), wal(dir.path())].map(|file| fs::read(file).ok());
            let expected = [database(harmed.path()), wal(harmed.path())];
            assert!(left == expected.map(|file| fs::read(file).ok()), "a file was changed");
            // What was harmed is put back: nothing is missing.
            let files = [database(dir.path()), wal(dir.path())];
            for (file, bytes) in files.iter().zip(&whole) {
                fs::write(file, bytes.as_ref().unwrap()).unwrap();
            }
            let journal = live_segment(&database(remains.dir.path()));
            let name = journal.file_name().unwrap().to_owned();
            fs::copy(journal, dir.path().join(name)).unwrap();
            remains.start(dir.path()).await.unwrap();
        }
    };
    in_copy(|dir| fs::remove_file(database(dir)).unwrap()).await;
    in_copy(|dir| fs::write(database(dir), "").unwrap()).await;
    in_copy(|dir| fs::remove_file(live_segment(&database(dir))).unwrap()).await;
    in_copy(|dir| {
        let mut bytes = fs::read(wal(dir)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(wal(dir), bytes).unwrap();
    })
    .await;
}
