//! Real file systems that reject to be written.
//!
//! `mount -o remount,ro` is rejected (EBUSY) while a file is open for writing, and an ext4 that turns
//! itself read-only after an error stays so until it is unmounted. What a running gateway meets is
//! shown by files that are made immutable under its open descriptors: each write through them fails
//! from then on, and succeeds again afterwards. The error number of a read-only file system (EROFS)
//! is in `injected_faults.rs`.

use std::time::Instant;

use crate::{
    common::eventually,
    common::volume::{Volume, set_immutable},
    files::files_of,
    load::{Load, Outage},
    scene::{Outcome, Scene},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, to mount"]
async fn a_full_disk_costs_no_count_and_service_returns_when_it_is_freed() {
    let volume = Volume::tmpfs(6);
    let scene = Scene::start(volume.path("quota.db")).await;
    for round in 0..3 {
        println!("round {round}");
        let load = Load::start(&scene);
        load.serve(20).await;
        let rejected =
            || load.sent().iter().filter(|sent| sent.outcome == Outcome::Rejected).count();
        // What an engine frees by itself is taken, too.
        eventually("rejections on a full disk", || async {
            volume.fill();
            rejected() >= 30
        })
        .await;
        let full = Instant::now();
        let known = load.until_rejected(full).await;
        let healed = Instant::now();
        volume.free();
        load.until_served(Instant::now()).await;
        load.finish(Some(Outage { known, healed })).await;
        scene.check_counts().await;
    }
    scene.check_after_kill().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, to mount"]
async fn read_only_files_cost_no_count_and_service_returns_with_them() {
    let volume = Volume::ext4(24);
    let scene = Scene::start(volume.path("quota.db")).await;
    for round in 0..3 {
        println!("round {round}");
        let load = Load::start(&scene);
        load.serve(20).await;
        let files = files_of(scene.database());
        set_immutable(&files, true);
        let known = load.until_rejected(Instant::now()).await;
        let healed = Instant::now();
        set_immutable(&files, false);
        load.until_served(Instant::now()).await;
        load.finish(Some(Outage { known, healed })).await;
        scene.check_counts().await;
    }
    scene.check_after_kill().await;
}
