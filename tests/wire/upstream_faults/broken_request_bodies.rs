//! Request bodies that a holder breaks off on purpose, once the upstream has begun its work, gain nothing.

use std::{
    pin::pin,
    task::{Context, Waker},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    common::{Gateway, eventually},
    holder::{Holder, Mode},
    rogue::{Rogue, Step::Hang},
    trial::{Kind, Outcome::Cut, command, kind, serves, used},
};

const LIMIT: usize = 5;

/// How a request body ends after its first chunk.
#[derive(Clone, Copy, Debug)]
enum End {
    NoChunk,
    TooLarge,
    Half,
}

/// Sends half a request body, and the rest once the upstream has received that.
/// Returns the status.
async fn send_in_two_parts(
    gateway: &Gateway,
    rogue: &Rogue,
    key: &str,
    path: &str,
    end: End,
) -> u16 {
    let heads = rogue.heads(path);
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    let begin = format!(
        "POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n\
         Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n"
    );
    socket.write_all(begin.as_bytes()).await.unwrap();
    let seen = &socket;
    let is_received_or_rejected = || async move { rogue.heads(path) > heads || has_come(seen) };
    eventually("received or rejected", is_received_or_rejected).await;
    // A rejection may have closed the connection already.
    let _ = match end {
        End::NoChunk => socket.write_all(b"zz\r\n").await,
        End::TooLarge => {
            socket.write_all(format!("3e8\r\n{}\r\n", "x".repeat(1000)).as_bytes()).await
        }
        End::Half => match socket.write_all(b"ff\r\nhalf").await {
            Ok(()) => socket.shutdown().await,
            error => error,
        },
    };
    let mut response = Vec::new();
    let _ = socket.read_to_end(&mut response).await;
    let response = String::from_utf8_lossy(&response);
    response.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// Whether something can be read.
fn has_come(socket: &TcpStream) -> bool {
    let mut byte = [0];
    pin!(socket.peek(&mut byte)).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Breaks request bodies off in these ways, in turn, until the day's quota is used up.
async fn break_request_bodies(ends: &[(End, u16)]) {
    static KINDS: &[Kind] = &[kind("takes all and waits", &[Hang], Cut(0, ""), 0)];
    let rogue = Rogue::start(KINDS).await;
    let gateway = command(&rogue.base_url()).env("MAX_BODY_BYTES", "1000").start();
    let key = gateway.create_key(json!({"daily_limit": LIMIT})).await;
    let mut broken = 0;
    for (end, status) in ends.iter().cycle() {
        match send_in_two_parts(&gateway, &rogue, &key, "/v1/0/broken", *end).await {
            429 => break,
            seen => assert_eq!(seen, *status, "{end:?}, number {broken}"),
        }
        broken += 1;
        assert!(broken <= 2 * LIMIT, "{end:?}: each refund buys another request");
    }
    assert_eq!(rogue.heads("/v1/0/broken"), broken, "one request out for each that came in");
    assert_eq!(broken, 2 * LIMIT, "as many refunds as the limit, and no more");
    assert_eq!(used(&gateway, &key).await, LIMIT as u64);
    let other = gateway.create_key(json!({"daily_limit": LIMIT})).await;
    let mut holder = Holder::new(gateway.address(), other, Mode::Plain);
    serves(&mut holder, "after all that").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_chunks_are_refunded_up_to_the_limit() {
    break_request_bodies(&[(End::NoChunk, 400)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_bodies_that_are_too_large_are_refunded_up_to_the_limit() {
    break_request_bodies(&[(End::TooLarge, 413)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_broken_request_bodies_share_one_allowance() {
    break_request_bodies(&[(End::NoChunk, 400), (End::TooLarge, 413)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_client_leaves_is_charged() {
    static KINDS: &[Kind] = &[kind("takes all and waits", &[Hang], Cut(0, ""), 0)];
    let rogue = Rogue::start(KINDS).await;
    let gateway = command(&rogue.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": LIMIT})).await;
    for _ in 0..LIMIT {
        assert_eq!(send_in_two_parts(&gateway, &rogue, &key, "/v1/0/left", End::Half).await, 400);
    }
    assert_eq!(used(&gateway, &key).await, LIMIT as u64);
    assert_eq!(send_in_two_parts(&gateway, &rogue, &key, "/v1/0/left", End::Half).await, 429);
}
