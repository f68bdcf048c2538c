//! Pages of the database are overwritten, while the gateway runs and before it starts.
//!
//! A damaged file may end service: nobody else can repair it. But a valid key is never called
//! unknown, a used-up key never works again, and with the file put back the gateway goes on.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::Instant,
};

use crate::{
    common::{Client, Gateway, Random},
    files::copy,
    load::Load,
    scene::{Key, Log, Outcome, Scene, TIME_LIMIT, command},
};

const PAGE: usize = 4096;

/// What a page is overwritten with.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Zeros,
    Noise(u64),
}

impl Damage {
    fn page(self) -> Vec<u8> {
        match self {
            Self::Zeros => vec![0; PAGE],
            Self::Noise(seed) => Random::of(seed).bytes(PAGE),
        }
    }
}

/// Overwrites a page, but not the part of the first that says what the file is.
fn damage(database: &Path, page: usize, damage: Damage) {
    let mut file = File::options().write(true).open(database).unwrap();
    let spared = if page == 0 { 100 } else { 0 };
    file.seek(SeekFrom::Start((page * PAGE + spared) as u64)).unwrap();
    file.write_all(&damage.page()[spared..]).unwrap();
}

fn pages(database: &Path) -> usize {
    usize::try_from(fs::metadata(database).unwrap().len()).unwrap() / PAGE
}

/// A directory with a database that was closed in order: a key that is used up, and a fresh one.
async fn prepared(log: &Log, directory: &Path) -> (Key, Key) {
    let upstream = log.upstream().await;
    let mut gateway = command(&upstream, &directory.join("quota.db")).start();
    let spent = log.issue(&gateway, 2).await.unwrap();
    let fresh = log.issue(&gateway, 1000).await.unwrap();
    for key in [&spent, &spent, &fresh] {
        let outcome = log.request(&Client::http1(), &gateway.url(""), key).await;
        assert_eq!(outcome, Outcome::Completed);
    }
    gateway.terminate();
    assert!(gateway.wait().success());
    (spent, fresh)
}

async fn ask(log: &Log, gateway: &Gateway, key: &Key) -> Outcome {
    let sent_at = Instant::now();
    let outcome = log.request(&Client::http1(), &gateway.url(""), key).await;
    assert!(sent_at.elapsed() < TIME_LIMIT, "{outcome:?} after {:?}", sent_at.elapsed());
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_at_the_start_rejects_requests_and_resets_no_count() {
    let (log, whole) = (Log::default(), tempfile::tempdir().unwrap());
    let (spent, fresh) = prepared(&log, whole.path()).await;
    let upstream = log.upstream().await;
    let mut random = Random::seeded("damaged pages");
    let mut wrong = Vec::new();
    let (mut rejected, mut unavailable, mut harmless) = (0, 0, 0);
    for page in 0..pages(&whole.path().join("quota.db")) {
        for harm in [Damage::Zeros, Damage::Noise(random.below(u64::MAX))] {
            let dir = tempfile::tempdir().unwrap();
            copy(whole.path(), dir.path());
            let database = dir.path().join("quota.db");
            damage(&database, page, harm);
            let gateway = match command(&upstream, &database).try_start() {
                Ok(gateway) => gateway,
                Err(printed) => {
                    rejected += 1;
                    let reported =
                        printed.trim_end().lines().count() == 1 && printed.contains("quota.db");
                    if !reported {
                        wrong.push(format!("page {page}, {harm:?}: {printed}"));
                    }
                    continue;
                }
            };
            let before = unavailable;
            for _ in 0..2 {
                match ask(&log, &gateway, &spent).await {
                    Outcome::Exhausted => harmless += 1,
                    Outcome::Rejected => unavailable += 1,
                    outcome => wrong.push(format!("page {page}, {harm:?}: spent, {outcome:?}")),
                }
                match ask(&log, &gateway, &fresh).await {
                    Outcome::Completed => harmless += 1,
                    Outcome::Rejected => unavailable += 1,
                    outcome => wrong.push(format!("page {page}, {harm:?}: fresh, {outcome:?}")),
                }
            }
            let health = Client::http1().get(&gateway.url("/healthz")).await;
            assert_eq!(health.status, 200);
            let ready = Client::http1().get(&gateway.url("/readyz")).await;
            if unavailable > before && ready.status != 503 {
                wrong.push(format!("page {page}, {harm:?}: ready, but rejects requests"));
            }
        }
    }
    println!("{rejected} failed starts; of the responses {unavailable} were 503, {harmless} right");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rejected + unavailable > 0, "nothing was shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_database_is_rejected_with_one_line_that_names_it() {
    let (log, dir) = (Log::default(), tempfile::tempdir().unwrap());
    prepared(&log, dir.path()).await;
    let database = dir.path().join("quota.db");
    let mut file = File::options().write(true).open(&database).unwrap();
    file.write_all(b"not what it was").unwrap();
    let upstream = log.upstream().await;
    let printed = command(&upstream, &database).try_start().err().expect("a failed start");
    assert_eq!(printed.trim_end().lines().count(), 1, "{printed}");
    assert!(printed.contains("quota.db"), "{printed}");
}

/// All pages but the first are overwritten under load, and the write-ahead log with them. Service
/// ends, for nobody repairs them; with a copy put back it goes on from there.
async fn under_load(harm: Damage) {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start(dir.path().join("quota.db")).await;
    let mut cold = Vec::new();
    for _ in 0..8 {
        cold.push(scene.log.issue(&scene.gateway, 10).await.unwrap());
    }
    let backup = dir.path().join("backup.db");
    let source = rusqlite::Connection::open(scene.database()).unwrap();
    source.busy_timeout(TIME_LIMIT).unwrap();
    source.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();

    let load = Load::start(&scene);
    load.serve(20).await;
    source.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let version: u32 = source.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let struck = Instant::now();
    for page in 1..pages(scene.database()) {
        damage(scene.database(), page, harm);
    }
    let log = dir.path().join("quota.db-wal");
    for page in 0..=pages(&log) {
        damage(&log, page, harm);
    }
    // After a commit of another process the gateway reads again what it has in its caches, which may be all that it
    // needs. It fails if the page that it writes is damaged in the log, which the gateway then reads, too.
    let _ = source.pragma_update(None, "user_version", version);
    drop(source);
    for key in &cold {
        let outcome = ask(&scene.log, &scene.gateway, key).await;
        assert!(matches!(outcome, Outcome::Completed | Outcome::Rejected), "{outcome:?}");
    }
    // A damaged page may be met for one key before it is met for all.
    load.until_rejected(struck).await;
    load.finish_with_partial_outage(struck).await;
    let Scene { mut gateway, upstream, log, .. } = scene;
    gateway.kill9();

    let database = dir.path().join("quota.db");
    // A copy is put in the place of all that belongs to the damaged file. What was counted since the
    // copy was made goes with it.
    let command = command(&upstream, &database);
    let restored = command.clone().arg("restore").arg(backup.to_str().unwrap()).output();
    assert!(restored.status.success(), "{restored:?}");
    let gateway = command.start();
    for key in &cold {
        assert_eq!(ask(&log, &gateway, key).await, Outcome::Completed);
    }
    let ready = Client::http1().get(&gateway.url("/readyz")).await;
    assert_eq!(ready.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_zeroed_under_load_ends_service_until_it_is_restored() {
    under_load(Damage::Zeros).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_overwritten_under_load_ends_service_until_it_is_restored() {
    under_load(Damage::Noise(Random::seeded("noise").below(u64::MAX))).await;
}
