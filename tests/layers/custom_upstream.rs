//! The example of another transport: the second upstream stands in for the first.

#[path = "../../examples/custom_upstream.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not run here")]
mod example;

use std::{fs, path::Path, time::Duration};

use example::{ask, upstream, with_failover};
use tempfile::TempDir;
use tokio::{net::UnixListener, task::JoinSet};

const FIRST: (u16, &str) = (200, "the first");
const SECOND: (u16, &str) = (200, "the second");

/// Starts an upstream behind this socket. It stops when the set is dropped.
fn start(path: &Path, name: &'static str) -> JoinSet<()> {
    // What an upstream that was stopped has left.
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).unwrap();
    let mut running = JoinSet::new();
    running.spawn(async move {
        upstream(listener, name).await.unwrap();
    });
    running
}

/// Whom the requests reach before, while and after the first upstream is away.
async fn answers(rest: Duration) -> [Vec<(u16, String)>; 3] {
    let dir = TempDir::new().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let mut service = with_failover(&first, &second, rest);
    let mut running = start(&first, FIRST.1);
    let _second = start(&second, SECOND.1);
    let before = vec![ask(&mut service).await.unwrap()];
    running.shutdown().await;
    let mut while_away = Vec::new();
    for _ in 0..3 {
        while_away.push(ask(&mut service).await.unwrap());
    }
    let _first = start(&first, FIRST.1);
    let after = vec![ask(&mut service).await.unwrap()];
    [before, while_away, after]
}

fn is(answer: &(u16, String), expected: (u16, &str)) -> bool {
    (answer.0, &*answer.1) == expected
}

#[tokio::test]
async fn the_second_stands_in_once_the_first_was_not_reached() {
    let [before, while_away, after] = answers(Duration::from_secs(3600)).await;
    assert!(is(&before[0], FIRST), "{before:?}");
    assert_eq!(while_away[0].0, 502, "one request finds out: {while_away:?}");
    assert!(while_away[1..].iter().all(|answer| is(answer, SECOND)), "{while_away:?}");
    assert!(is(&after[0], SECOND), "the first still has its rest: {after:?}");
}

#[tokio::test]
async fn the_first_is_called_again_after_its_pause() {
    let [_, while_away, after] = answers(Duration::ZERO).await;
    assert!(while_away.iter().all(|answer| answer.0 == 502), "{while_away:?}");
    assert!(is(&after[0], FIRST), "{after:?}");
}
