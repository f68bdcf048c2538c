//! The operator's day in Chromium, before a real gateway: from minting keys to the audit trail that
//! records all of it; and again over a store in memory. With `SHOTS` set to a directory, pictures of
//! every view are put there.

use crate::common::{
    ADMIN_TOKEN, Client, GatewayCommand, eventually,
    memory_gateway::MemoryGateway,
    postgres::{Postgres, psql},
};

fn play(scene: &str) {
    let gateway = GatewayCommand::new().arg("--demo").env("USAGE_RETENTION_DAYS", "7").start();
    let played = play_at(&gateway.url(""), scene);
    let printed = gateway.printed();
    assert!(played.is_ok(), "{}\n{printed}", played.unwrap_err());
    assert!(!printed.contains(ADMIN_TOKEN), "the token was logged");
}

/// What went wrong, if it did.
fn play_at(base_url: &str, scene: &str) -> Result<(), String> {
    let output = crate::common::node("operator_day.cjs")
        .arg(scene)
        .env("BASE_URL", base_url)
        .env("TOKEN", ADMIN_TOKEN)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(errors) }
}

#[test]
#[ignore = "needs Chromium and Node with playwright-core and axe-core"]
fn the_audit_trail_records_an_operators_day() {
    play("day");
}

#[test]
#[ignore = "needs Chromium and Node with playwright-core and axe-core"]
fn an_ended_session_returns_to_its_view_and_discards_the_token() {
    play("session");
}

#[test]
#[ignore = "needs Chromium and Node with playwright-core and axe-core"]
fn forty_hostile_labels_are_text_on_every_view() {
    play("hostile");
}

#[test]
#[ignore = "needs Chromium and Node with playwright-core and axe-core"]
fn keys_are_exported_and_imported_after_a_dry_run() {
    play("transfer");
}

#[test]
#[ignore = "needs Chromium and Node with playwright-core and axe-core"]
fn every_view_is_readable_in_each_language_scheme_and_size() {
    play("looks");
}

#[test]
#[ignore = "needs Chromium and Node with playwright-core and axe-core"]
fn failed_actions_are_not_reported_as_done() {
    play("order");
}

#[test]
#[ignore = "needs Chromium and Node with playwright-core and axe-core"]
fn many_claim_links_are_made_at_once() {
    play("workshop");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium and Node with playwright-core and axe-core, and PostgreSQL"]
async fn a_silent_node_is_listed_and_released_on_the_page() {
    let url = Postgres::shared().create_database();
    let gateway = GatewayCommand::new()
        .arg("--demo")
        .env("DATABASE_URL", &url)
        .env("JOURNAL_ACCEPT_VOLATILE", "true")
        .start();
    let is_ready = || async { Client::http1().get(&gateway.url("/readyz")).await.status == 200 };
    eventually("the gateway is ready", is_ready).await;
    psql(
        &url,
        "INSERT INTO nodes (id, is_closed, entered_at, seen_at)
             SELECT uuid_send(gen_random_uuid()), false, at, at FROM (SELECT now() - interval '1 hour') AS gone (at);
         INSERT INTO awaited_events (node, key_id, day, events)
             SELECT id, 'key_of_nobody', '2026-11-01', 2 FROM nodes WHERE number = 2",
    );
    let played = play_at(&gateway.url(""), "nodes");
    assert!(played.is_ok(), "{}\n{}", played.unwrap_err(), gateway.printed());
}

#[test]
#[ignore = "needs Chromium and Node with playwright-core and axe-core"]
fn the_admin_page_works_with_a_memory_store() {
    for scene in ["day", "session", "order", "hostile", "transfer", "workshop"] {
        play_at(&MemoryGateway::start().url(""), scene).unwrap();
    }
}
