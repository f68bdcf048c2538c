//! Unbounded responses, and request bodies that the upstream does not read.

use std::fs;

use http::Method;
use http_body_util::BodyExt;
use serde_json::json;

use super::{
    common::{Client, DEADLINE, Gateway, eventually},
    holder::{Holder, Mode},
    rogue::{
        Rogue,
        Step::{Close, Deaf, ReadBody, Repeat, Send},
    },
    trial::{
        Kind,
        Outcome::{Cut, Error},
        command, judge, kind, serves, try_all, used,
    },
};

/// 64 KiB, of which 16,384 are 1 GiB.
const PIECE: &str = {
    static BYTES: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    match str::from_utf8(&BYTES) {
        Ok(piece) => piece,
        Err(_) => unreachable!(),
    }
};

/// The most memory that the gateway has held, in KiB.
fn peak(gateway: &Gateway) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_is_read_only_as_fast_and_as_long_as_the_client_reads() {
    static KINDS: &[Kind] = &[
        kind(
            "of known length",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nContent-Length: 1073741824\r\n\r\n",
                ),
                Repeat(PIECE, 16_384),
            ],
            Cut(200, ""),
            1,
        ),
        kind(
            "to the end of the connection",
            &[
                ReadBody,
                Send("HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\n\r\n"),
                Repeat(PIECE, 16_384),
                Close,
            ],
            Cut(200, ""),
            1,
        ),
    ];
    const READ: usize = 32 << 20;
    const HELD: usize = 32 << 20;
    let rogue = Rogue::start(KINDS).await;
    let gateway = command(&rogue.base_url()).start();
    let before = peak(&gateway);
    let mut gone = 0;
    for number in 0..KINDS.len() {
        for (mode, client) in
            [(Mode::Streamed, Client::http1()), (Mode::StreamedOverHttp2, Client::http2())]
        {
            let key = gateway.create_key(json!({"daily_limit": 10})).await;
            let authorization = format!("Bearer {key}");
            let headers =
                [("authorization", authorization.as_str()), ("accept", "text/event-stream")];
            let url = gateway.url(&format!("/v1/{number}/flood"));
            let sent = rogue.repeated();
            let response = client.open(Method::POST, &url, &headers, "{}").await.unwrap();
            let (mut body, mut read) = (response.into_body(), 0);
            while read < READ {
                let frame = tokio::time::timeout(DEADLINE, body.frame()).await.unwrap();
                read += frame.unwrap().unwrap().into_data().unwrap().len();
            }
            drop((body, client));
            gone += 1;
            eventually("the upstream is left", || async { rogue.left() == gone }).await;
            let ahead = (rogue.repeated() - sent).saturating_sub(READ);
            assert!(ahead < HELD, "{mode:?}: {ahead} bytes were read ahead");
            assert_eq!(used(&gateway, &key).await, 1);
            let mut holder = Holder::new(gateway.address(), key, mode);
            serves(&mut holder, "after the flood").await.unwrap();
        }
    }
    // Code that is read in counts, too: some 20 MiB of it where it is not optimised.
    let grown = peak(&gateway) - before;
    assert!(grown < 2 * HELD / 1024, "{grown} KiB more");
    judge(&gateway, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_failure_is_not_read_to_its_end() {
    static KINDS: &[Kind] = &[
        kind(
            "a gigabyte",
            &[
                ReadBody,
                Send("HTTP/1.1 500 No\r\nContent-Type: text/html\r\n\r\nbetween-us"),
                Repeat(PIECE, 16_384),
                Close,
            ],
            Error(500, "upstream_failed"),
            0,
        ),
        kind(
            "a redirect of a gigabyte",
            &[
                ReadBody,
                Send("HTTP/1.1 302 No\r\nContent-Length: 1073741824\r\n\r\nbetween-us"),
                Repeat(PIECE, 16_384),
            ],
            Error(502, "upstream_redirect"),
            0,
        ),
    ];
    try_all(KINDS).await;
}

/// Posts 8 MiB; returns the status and the text.
async fn send_large_body(
    gateway: &Gateway,
    client: Client,
    key: &str,
    path: &str,
) -> (u16, String) {
    let response = client.post_as(key, &gateway.url(path), &json!("x".repeat(8 << 20))).await;
    (response.status.as_u16(), response.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_that_is_not_read_ends_in_a_timeout_or_a_response() {
    static KINDS: &[Kind] = &[
        kind("not read", &[Deaf], Error(504, "upstream_timeout"), 1),
        kind(
            "an early response",
            &[Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Deaf],
            Error(200, ""),
            1,
        ),
        kind(
            "an early rejection",
            &[Send("HTTP/1.1 413 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"), Deaf],
            Error(413, ""),
            1,
        ),
    ];
    let rogue = Rogue::start(KINDS).await;
    let gateway = command(&rogue.base_url()).env("UPSTREAM_HEAD_TIMEOUT", "1s").start();
    for (number, kind) in KINDS.iter().enumerate() {
        for (mode, client) in
            [(Mode::Plain, Client::http1()), (Mode::StreamedOverHttp2, Client::http2())]
        {
            let key = gateway.create_key(json!({"daily_limit": 10})).await;
            let path = format!("/v1/{number}/{mode:?}").to_lowercase();
            let (status, text) = send_large_body(&gateway, client, &key, &path).await;
            let Error(expected, code) = kind.outcome else { unreachable!() };
            assert_eq!(status, expected, "{}, {mode:?}: {text}", kind.name);
            assert!(text.contains(code), "{}, {mode:?}: {text}", kind.name);
            assert_eq!(used(&gateway, &key).await, 1, "{}, {mode:?}", kind.name);
            assert_eq!(rogue.heads(&path), 1, "{}, {mode:?}", kind.name);
            let mut holder = Holder::new(gateway.address(), key, mode);
            serves(&mut holder, "after the request body").await.unwrap();
        }
    }
    judge(&gateway, &[]);
}
