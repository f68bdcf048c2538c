//! A journal that is not as it was written.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{Client, Gateway, GatewayCommand, Upstream, chat_json, eventually, json_answer};
use serde_json::json;

const ANSWERED: usize = 40;
/// What stands before the first record.
const HEAD: usize = 16;

/// The segments of the journal, the newest last.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let mut segments: Vec<_> =
        files.filter(|path| path.to_str().unwrap().contains(".journal.")).collect();
    let number =
        |path: &PathBuf| path.extension().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    segments.sort_by_key(number);
    segments
}

/// A gateway that was killed when it had answered a key's whole day and folded none of it, so that
/// all is in one segment.
async fn killed(command: &GatewayCommand) -> (Gateway, String) {
    let gateway = command.start();
    let key = gateway.create_key(json!({"daily_limit": ANSWERED})).await;
    // SQLite's lock keeps the writer from folding.
    let other = rusqlite::Connection::open(gateway.dir().join("quota.db")).unwrap();
    let (client, url) = (Client::http1(), gateway.url("/v1/chat/completions"));
    let used_up = async || {
        for _ in 0..ANSWERED {
            assert_eq!(client.post_as(&key, &url, &json!({})).await.status, 200);
        }
    };
    client.get_as(&key, &gateway.url("/usage")).await;
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    used_up().await;
    let mut gateway = gateway;
    gateway.kill9();
    drop(other);
    (gateway, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_the_same_boot_is_refused_and_names_the_place() {
    let upstream = Upstream::start(|_| json_answer(chat_json().to_string())).await;
    let command = GatewayCommand::new().env("UPSTREAM_BASE_URL", upstream.base_url());
    let (_killed, _) = killed(&command).await;
    let segment = segments(command.dir()).pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    for at in [HEAD, HEAD + 1, HEAD + 5, HEAD + 12, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&segment, damaged).unwrap();
        let refused = command.output();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{at}: {said}");
        let name = segment.file_name().unwrap().to_str().unwrap();
        assert!(said.contains(name) && said.contains("is damaged at byte"), "{at}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_journal_restored_every_answer_is_counted() {
    let upstream = Upstream::start(|_| json_answer(chat_json().to_string())).await;
    let command = GatewayCommand::new().env("UPSTREAM_BASE_URL", upstream.base_url());
    let (_killed, key) = killed(&command).await;
    let segment = segments(command.dir()).pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    fs::write(&segment, [&whole[..whole.len() / 2], &[1], &whole[whole.len() / 2 + 1..]].concat())
        .unwrap();
    assert!(!command.output().status.success());
    fs::write(&segment, whole).unwrap();
    let gateway = command.start();
    eventually("all are counted", || async {
        let usage = Client::http1().get_as(&key, &gateway.url("/usage")).await.json();
        usage["used"] == ANSWERED
    })
    .await;
}
