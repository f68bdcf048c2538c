//! Somebody removes or replaces a file that the gateway has open.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    common::{Client, eventually},
    files::live_segment,
    load::{Load, Outage},
    scene::{Scene, command},
};

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

async fn nothing_is_served_while_it_is_away(name: impl FnOnce(&Path) -> PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start(dir.path().join("quota.db")).await;
    let load = Load::start(&scene);
    load.serve(20).await;
    let file = name(scene.database());
    let away = beside(&file, ".away");
    let struck = Instant::now();
    fs::rename(&file, &away).unwrap();
    let known = load.until_rejected(struck).await;
    fs::rename(&away, &file).unwrap();
    let healed = Instant::now();
    load.until_served(healed).await;
    load.finish(Some(Outage { known, healed })).await;
    scene.check_after_kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_nothing_is_served_until_it_is_back() {
    nothing_is_served_while_it_is_away(Path::to_owned).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_journal_nothing_is_served_until_it_is_back() {
    nothing_is_served_while_it_is_away(live_segment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_wal_nothing_is_served_until_it_is_back() {
    nothing_is_served_while_it_is_away(|database| beside(database, "-wal")).await;
}

/// A gateway with a key whose WAL `lose` has taken something from: it is not ready, and creates no key.
async fn with_lost_commits(lose: impl FnOnce(&Path)) -> (tempfile::TempDir, Scene) {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start(dir.path().join("quota.db")).await;
    let wal = beside(scene.database(), "-wal");
    // Soon after the start it is emptied, once.
    eventually("commits in the WAL", || async {
        scene.log.issue(&scene.gateway, 3).await.expect("a key");
        fs::metadata(&wal).unwrap().len() > 50_000
    })
    .await;
    lose(&wal);
    assert!(scene.log.issue(&scene.gateway, 3).await.is_none(), "a key that will be gone");
    let ready = || async { Client::http1().get(&scene.gateway.url("/readyz")).await.status };
    eventually("it is not ready", || async { ready().await == 503 }).await;
    (dir, scene)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_completed_before_the_wal_was_removed_are_there_after_a_restart() {
    let (_dir, mut scene) = with_lost_commits(|wal| fs::remove_file(wal).unwrap()).await;
    scene.gateway.kill9();
    scene.gateway = command(&scene.upstream, scene.database()).start();
    scene.check_after_kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wal_that_was_cut_ends_service_and_prevents_the_next_start() {
    for left in [0, 5_000] {
        let cut =
            |wal: &Path| File::options().write(true).open(wal).unwrap().set_len(left).unwrap();
        let (_dir, mut scene) = with_lost_commits(cut).await;
        scene.gateway.kill9();
        let printed = command(&scene.upstream, scene.database()).try_start().err();
        let printed = printed.expect("a failed start");
        assert!(printed.contains("is older than its journal"), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wal_that_sqlite_itself_has_emptied_is_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start(dir.path().join("quota.db")).await;
    let file = rusqlite::Connection::open(scene.database()).unwrap();
    for _ in 0..5 {
        let is_busy = || file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        eventually("a WAL that nobody reads", || async { is_busy() == Ok(0) }).await;
        scene.log.issue(&scene.gateway, 3).await.expect("a key");
    }
    let load = Load::start(&scene);
    load.serve(20).await;
    load.finish(None).await;
    scene.check_after_kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_was_cut_goes_on_in_a_new_segment() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start(dir.path().join("quota.db")).await;
    let load = Load::start(&scene);
    load.serve(20).await;
    let cut = live_segment(scene.database());
    File::options().write(true).open(&cut).unwrap().set_len(300).unwrap();
    eventually("a new segment", || async { live_segment(scene.database()) != cut }).await;
    load.until_served(Instant::now()).await;
    load.finish(None).await;
    scene.check_after_kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_file_in_the_place_of_the_database_ends_service() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start(dir.path().join("quota.db")).await;
    let backup = beside(scene.database(), ".backup");
    let connection = rusqlite::Connection::open(scene.database()).unwrap();
    connection.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    fs::rename(&backup, scene.database()).unwrap();
    eventually("it is seen", || async {
        Client::http1().get(&scene.gateway.url("/readyz")).await.status == 503
    })
    .await;
    let said =
        || async { scene.gateway.printed().contains("the database was removed or replaced") };
    eventually("a word about it", said).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_does_not_start_when_the_lock_file_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start(dir.path().join("quota.db")).await;
    fs::remove_file(beside(scene.database(), ".lock")).unwrap();
    let rejected = command(&scene.upstream, scene.database()).output();
    let said = String::from_utf8(rejected.stderr).unwrap();
    assert!(said.contains("is in use by another process"), "{said}");
    let load = Load::start(&scene);
    load.serve(20).await;
    load.finish(None).await;
    scene.check_after_kill().await;
}
