//! Somebody removes or replaces a file that the gateway has open.

use std::{
    fs,
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
    let known = load.until_refused(struck).await;
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
    assert!(scene.gateway.printed().contains("the database was removed or replaced"));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_is_refused_when_the_lock_file_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start(dir.path().join("quota.db")).await;
    fs::remove_file(beside(scene.database(), ".lock")).unwrap();
    let refused = command(&scene.upstream, scene.database()).output();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("is in use by another process"), "{said}");
    let load = Load::start(&scene);
    load.serve(20).await;
    load.finish(None).await;
    scene.check_after_kill().await;
}
