//! A new segment of the journal survives a loss of power before anything is written to it.

use std::fs;

use crate::{
    common::{Client, Upstream, chat_json, json_response},
    scene::command,
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn new_segment_and_name_are_synced_before_the_first_record() {
    let dir = tempfile::tempdir().unwrap();
    // Without links in it, as strace shows it.
    let data = dir.path().canonicalize().unwrap();
    let log = data.join("strace");
    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let calls = "trace=fsync,fdatasync,pwrite64";
    let tracer = ["strace", "-D", "-f", "-y", "-qq", "-e", calls, "-o", log.to_str().unwrap()];
    let mut gateway = command(&upstream, &data.join("quota.db")).under(&tracer).start();
    let key = gateway.create_key(serde_json::json!({"daily_limit": 5})).await;
    let url = gateway.url("/v1/chat/completions");
    let response = Client::http1().post_as(&key, &url, &serde_json::json!({})).await;
    assert_eq!(response.status, 200);
    gateway.kill9();

    let log = fs::read_to_string(log).unwrap();
    let calls: Vec<&str> = log.lines().collect();
    let writes: Vec<usize> = (0..calls.len())
        .filter(|&at| calls[at].contains("pwrite64(") && calls[at].contains(".journal."))
        .collect();
    // The first is the segment's head.
    let before = &calls[writes[0]..writes[1]];
    let synced = |name: String| {
        let is = |call: &&str| call.contains("fsync(") && call.contains(&name);
        before.iter().any(is)
    };
    assert!(synced(".journal.".to_owned()), "{before:#?}");
    assert!(synced(format!("<{}>", data.display())), "{before:#?}");
}
