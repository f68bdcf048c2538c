//! The example of a custom transport: the second upstream replaces the first while that is unreachable.

#[path = "../../examples/custom_upstream.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not run here")]
mod example;

use std::{fs, path::Path, time::Duration};

use example::{send, upstream, with_failover};
use tempfile::TempDir;
use tokio::{net::UnixListener, task::JoinSet};

const FIRST: (u16, &str) = (200, "the first");
const SECOND: (u16, &str) = (200, "the second");

/// Starts an upstream behind this socket. It stops when the set is dropped.
fn start(path: &Path, name: &'static str) -> JoinSet<()> {
    // The socket of an upstream that was stopped.
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).unwrap();
    let mut running = JoinSet::new();
    running.spawn(async move {
        upstream(listener, name).await.unwrap();
    });
    running
}

/// Returns the responses before, while and after the first upstream is stopped.
async fn responses(cooldown: Duration) -> [Vec<(u16, String)>; 3] {
    let dir = TempDir::new().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let mut service = with_failover(&first, &second, cooldown);
    let mut running = start(&first, FIRST.1);
    let _second = start(&second, SECOND.1);
    let before = vec![send(&mut service).await.unwrap()];
    running.shutdown().await;
    let mut while_stopped = Vec::new();
    for _ in 0..3 {
        while_stopped.push(send(&mut service).await.unwrap());
    }
    let _first = start(&first, FIRST.1);
    let after = vec![send(&mut service).await.unwrap()];
    [before, while_stopped, after]
}

fn is(response: &(u16, String), expected: (u16, &str)) -> bool {
    (response.0, &*response.1) == expected
}

#[tokio::test]
async fn uses_the_second_upstream_after_the_first_was_not_reached() {
    let [before, while_stopped, after] = responses(Duration::from_secs(3600)).await;
    assert!(is(&before[0], FIRST), "{before:?}");
    assert_eq!(while_stopped[0].0, 502, "one request fails: {while_stopped:?}");
    assert!(while_stopped[1..].iter().all(|response| is(response, SECOND)), "{while_stopped:?}");
    assert!(is(&after[0], SECOND), "the cooldown is not over: {after:?}");
}

#[tokio::test]
async fn retries_the_first_upstream_after_the_cooldown() {
    let [_, while_stopped, after] = responses(Duration::ZERO).await;
    assert!(while_stopped.iter().all(|response| response.0 == 502), "{while_stopped:?}");
    assert!(is(&after[0], FIRST), "{after:?}");
}
