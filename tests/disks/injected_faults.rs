//! The n-th write or sync fails, once or from then on.

use std::{
    env,
    time::{Duration, Instant},
};

use crate::{
    common::{Random, eventually},
    load::{Load, Outage},
    scene::{Log, Scene, command},
    tracer::{ALL_CHANGES, Fault, SIZES, SLOW_SYNCS, SYNCS, Tracer, WRITES},
};

const MOST: u32 = 200;
/// Interval of the tested n, unless `TOWER_QUOTA_ALL_FAULTS` is set.
const STEP: usize = 5;
/// How long requests may take to bring about the n-th call. An engine that seldom syncs does not
/// get to 200 in that time; then the last n that it got to says enough.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The numbers to try: all with `TOWER_QUOTA_ALL_FAULTS=1`, else every fifth from a random one on.
fn numbers(most: u32) -> impl Iterator<Item = u32> {
    let all = env::var_os("TOWER_QUOTA_ALL_FAULTS").is_some();
    let step = if all { 1 } else { STEP };
    let first = 1 + Random::seeded("faults").below(step as u64) as u32;
    (first..=most).step_by(step)
}

async fn the_nth_call_fails_once(fault: Fault, durability: &'static str, most: u32) {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start_with(dir.path().join("quota.db"), durability).await;
    for n in numbers(most) {
        println!("the {n}th of {fault:?}");
        let load = Load::start(&scene);
        let tracer = Tracer::attach(scene.gateway.id(), fault, &n.to_string()).await;
        let reached = struck(&tracer).await;
        drop(tracer);
        load.until_served(Instant::now()).await;
        load.finish(None).await;
        scene.check_counts().await;
        if !reached {
            println!("not reached in {TIMEOUT:?}: the end of this run");
            assert!(n > 5, "nothing was shown");
            break;
        }
    }
    scene.check_after_kill().await;
}

async fn all_calls_fail_after_n_responses(fault: Fault, durability: &'static str, most: u32) {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start_with(dir.path().join("quota.db"), durability).await;
    for n in numbers(most) {
        println!("{fault:?} from the {n}th response on");
        let load = Load::start(&scene);
        load.serve(n as usize).await;
        // strace counts calls in each thread, and all of them are to fail.
        let tracer = Tracer::attach(scene.gateway.id(), fault, "1+").await;
        let attached = Instant::now();
        let outage = if struck(&tracer).await {
            let known = load.until_rejected(Instant::now()).await;
            // A lease may be spent without another sync; else each response needs one.
            if durability == "power" || fault != SYNCS {
                load.none_was_completed_since(attached);
            }
            Some(Outage { known, healed: Instant::now() })
        } else {
            println!("not reached in {TIMEOUT:?}: the end of this run");
            assert!(n > 5, "nothing was shown");
            None
        };
        drop(tracer);
        load.until_served(Instant::now()).await;
        let reached = outage.is_some();
        load.finish(outage).await;
        scene.check_counts().await;
        if !reached {
            break;
        }
    }
    scene.check_after_kill().await;
}

/// Waits for the failure, at most for [`TIMEOUT`].
async fn struck(tracer: &Tracer) -> bool {
    let begun = Instant::now();
    eventually("a failed call", || async { tracer.has_struck() || begun.elapsed() > TIMEOUT })
        .await;
    tracer.has_struck()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn one_failed_write_costs_no_count() {
    the_nth_call_fails_once(WRITES, "process", MOST).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn one_failed_sync_costs_no_count() {
    the_nth_call_fails_once(SYNCS, "process", MOST).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn one_failed_write_costs_no_count_where_each_unit_is_synced() {
    the_nth_call_fails_once(WRITES, "power", MOST).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn one_failed_sync_costs_no_count_where_each_unit_is_synced() {
    the_nth_call_fails_once(SYNCS, "power", MOST).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn syncs_that_fail_for_a_while_end_service_where_each_unit_is_synced() {
    all_calls_fail_after_n_responses(SYNCS, "power", 50).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn writes_that_fail_for_a_while_end_service_until_they_succeed() {
    all_calls_fail_after_n_responses(WRITES, "process", MOST).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn syncs_that_fail_for_a_while_end_service_until_they_succeed() {
    all_calls_fail_after_n_responses(SYNCS, "process", MOST).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn a_file_system_that_turns_read_only_ends_service_until_it_is_writable() {
    all_calls_fail_after_n_responses(ALL_CHANGES, "process", 25).await;
}

/// What fails while the gateway starts is either rejected with one line or of no consequence, and
/// breaks nothing: it starts afterwards.
async fn a_start_with_a_failed_call(fault: Fault, persistent: bool) {
    let (log, dir) = (Log::default(), tempfile::tempdir().unwrap());
    let upstream = log.upstream().await;
    let mut rejected = 0;
    for n in 1..=MOST {
        let database = dir.path().join(format!("{n}.db"));
        let seen = dir.path().join(format!("{n}.strace"));
        let when = if persistent { format!("{n}+") } else { n.to_string() };
        let mut strace = vec!["strace".to_owned(), "-D".to_owned()];
        strace.extend(fault.arguments(&when));
        strace.extend(["-o".to_owned(), seen.to_str().unwrap().to_owned()]);
        let words: Vec<&str> = strace.iter().map(String::as_str).collect();
        let plain = command(&upstream, &database);
        match plain.clone().under(&words).try_start() {
            Ok(gateway) => drop(gateway),
            Err(printed) => {
                rejected += 1;
                assert_eq!(printed.trim_end().lines().count(), 1, "the {n}th: {printed}");
                assert!(printed.contains("DATABASE_URL"), "the {n}th: {printed}");
            }
        }
        let mut gateway = plain.start();
        log.issue(&gateway, 3).await.expect("a key");
        gateway.terminate();
        assert!(gateway.wait().success());
        if !std::fs::read_to_string(seen).unwrap().contains("(INJECTED)") {
            println!("{rejected} of {n} starts failed: {fault:?}, persistent: {persistent}");
            assert!(rejected > 0, "nothing was shown");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn a_start_whose_nth_write_fails_ends_and_breaks_nothing() {
    a_start_with_a_failed_call(WRITES, false).await;
    a_start_with_a_failed_call(WRITES, true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn a_start_whose_nth_sync_fails_ends_and_breaks_nothing() {
    a_start_with_a_failed_call(SYNCS, false).await;
    a_start_with_a_failed_call(SYNCS, true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn a_start_whose_nth_resize_fails_ends_and_breaks_nothing() {
    a_start_with_a_failed_call(SIZES, true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn a_disk_that_does_not_respond_ends_service_until_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::start(dir.path().join("quota.db")).await;
    let load = Load::start(&scene);
    load.serve(20).await;
    let tracer = Tracer::attach(scene.gateway.id(), SLOW_SYNCS, "1+").await;
    let known = load.until_rejected(Instant::now()).await;
    // Without strace the call goes on at once.
    drop(tracer);
    let healed = Instant::now();
    load.until_served(healed).await;
    load.finish(Some(Outage { known, healed })).await;
    scene.check_after_kill().await;
}
