//! What each outcome of a request costs, with an upstream that misbehaves on its socket.

use crate::common::{Client, Gateway, GatewayCommand, Rogue, Upstream, Wire, free_port, full};
use http::{Method, Response};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn command(upstream_base_url: impl Into<String>) -> GatewayCommand {
    GatewayCommand::before(upstream_base_url).env("RUST_LOG", "error")
}

/// How a client sends the request of a row, and how far it stays.
#[derive(Clone, Copy, Debug)]
enum Holder {
    /// Sends it and reads the whole response, which is of this status.
    Reads(u16),
    /// Reads a head of status 200 and a body that breaks off.
    ReadsHalf,
    /// Leaves once the upstream has the request.
    LeavesBeforeHead,
    /// Leaves once it has read the head and the first piece of the body.
    LeavesMidStream,
    /// Sends these bytes with `KEY` replaced by the key, and reads a response of this status.
    SendsRaw(u16, &'static str),
}

use Holder::{LeavesBeforeHead, LeavesMidStream, Reads, ReadsHalf, SendsRaw};

/// Outcome, what the upstream is to do, what the client does, units charged.
type Row = (&'static str, &'static str, Holder, u64);

const TABLE: &[Row] = &[
    ("a good response", "200", Reads(200), 1),
    ("a good response without a body", "204", Reads(204), 1),
    ("5xx: the upstream failed", "500", Reads(500), 0),
    ("5xx: a gateway on its way failed", "502", Reads(502), 0),
    ("5xx: overloaded", "503", Reads(503), 0),
    ("5xx: too slow on its own account", "504", Reads(504), 0),
    ("5xx: a number of its own", "529", Reads(529), 0),
    ("4xx: a bad request", "400", Reads(400), 1),
    ("4xx: no such model", "404", Reads(404), 1),
    ("4xx: conflict", "409", Reads(409), 1),
    ("4xx: unprocessable", "422", Reads(422), 1),
    ("the sponsor is forbidden", "403", Reads(502), 0),
    ("the upstream limits the sponsor", "429", Reads(503), 0),
    ("3xx: moved", "301", Reads(502), 0),
    ("3xx: found", "302", Reads(502), 0),
    ("3xx: temporary", "307", Reads(502), 0),
    ("the upstream closes with no response", "close", Reads(502), 1),
    ("the upstream talks nonsense", "nonsense", Reads(502), 1),
    ("the upstream resets a body of known length", "cut length", ReadsHalf, 1),
    ("the upstream resets a body of chunks", "cut chunks", ReadsHalf, 1),
    ("the client leaves before the head", "hang", LeavesBeforeHead, 1),
    ("the client leaves mid-stream", "stream", LeavesMidStream, 1),
    ("rejected: no key", "", SendsRaw(401, "POST /v1/x HTTP/1.1\r\nHost: g\r\n\r\n"), 0),
    (
        "rejected: two keys",
        "",
        SendsRaw(
            400,
            "POST /v1/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer KEY\r\nX-Api-Key: b\r\n\r\n",
        ),
        0,
    ),
    (
        "rejected: an odd target",
        "",
        SendsRaw(
            400,
            "POST /v1/../admin HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer KEY\r\n\
             Content-Length: 0\r\n\r\n",
        ),
        0,
    ),
    (
        "rejected: a broken body",
        "",
        SendsRaw(
            400,
            "POST /v1/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer KEY\r\n\
             Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n",
        ),
        0,
    ),
    (
        "rejected: too large by its own account",
        "",
        SendsRaw(
            413,
            "POST /v1/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer KEY\r\n\
             Content-Length: 101\r\n\r\n",
        ),
        0,
    ),
    (
        "rejected: too large as it turns out",
        "",
        SendsRaw(
            413,
            "POST /v1/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer KEY\r\n\
             Transfer-Encoding: chunked\r\n\r\n65\r\n12345678901234567890123456789012345678901234\
             567890123456789012345678901234567890123456789012345678901\r\n0\r\n\r\n",
        ),
        0,
    ),
];

async fn act(gateway: &Gateway, rogue: &Rogue, key: &str, row: &Row, abandoned: &mut usize) {
    let (outcome, wish, client, _) = row;
    if let SendsRaw(status, request) = client {
        let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
        socket.write_all(request.replace("KEY", key).as_bytes()).await.unwrap();
        let mut head = [0; 12];
        socket.read_exact(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head);
        assert_eq!(head, format!("HTTP/1.1 {status}"), "{outcome}");
        return;
    }
    let reached = rogue.count();
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    wire.write(key, wish).await.unwrap();
    rogue.reached_by(reached + 1).await;
    match client {
        LeavesBeforeHead => {}
        LeavesMidStream => {
            assert_eq!(wire.head().await.unwrap().status, 200, "{outcome}");
            assert_eq!(wire.piece().await.unwrap(), b"data: 1\n\n", "{outcome}");
        }
        ReadsHalf => {
            let head = wire.head().await.unwrap();
            assert_eq!(head.status, 200, "{outcome}");
            assert!(wire.body(head).await.is_err(), "{outcome}: it does not end as if complete");
        }
        Reads(status) => {
            let head = wire.head().await.unwrap();
            assert_eq!(head.status, *status, "{outcome}");
            wire.body(head).await.unwrap();
        }
        SendsRaw(..) => unreachable!(),
    }
    drop(wire);
    if matches!(client, LeavesBeforeHead | LeavesMidStream) {
        *abandoned += 1;
        rogue.left_by(*abandoned).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_costs_what_the_contract_says() {
    let rogue = Rogue::start().await;
    let mut gateway = command(rogue.base_url()).env("MAX_BODY_BYTES", "100").start();
    let mut abandoned = 0;
    let mut costs = Vec::new();
    for row in TABLE {
        let key = gateway.create_key(json!({"daily_limit": 9})).await;
        for times in 1..=2 {
            act(&gateway, &rogue, &key, row, &mut abandoned).await;
            assert_eq!(gateway.used(&key).await, times * row.3, "{} ({times})", row.0);
            if let Reads(_) = row.2 {
                let refunded = &gateway.usage(&key).await["requests"]["refunded"];
                assert_eq!(*refunded, times * (1 - row.3), "{} ({times})", row.0);
            }
        }
        costs.push((row.0, key, 2 * row.3));
    }
    // Nothing of it comes later, and nothing of it is forgotten.
    gateway.restart();
    for (outcome, key, cost) in costs {
        assert_eq!(gateway.used(&key).await, cost, "{outcome}, after a restart");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_used_up_disabled_or_unknown_pays_nothing_for_rejections() {
    let rogue = Rogue::start().await;
    let gateway = command(rogue.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 1})).await;
    let path = format!("/admin/keys/{key}");
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    assert_eq!(wire.post(&key, "200").await.unwrap().0, 200);
    for _ in 0..3 {
        assert_eq!(wire.post(&key, "200").await.unwrap().0, 429);
        assert_eq!(wire.post("trial-nobody", "200").await.unwrap().0, 401);
    }
    gateway.admin(Method::PATCH, &path, &json!({"disabled": true})).await;
    assert_eq!(wire.post(&key, "200").await.unwrap().0, 403);
    gateway.admin(Method::PATCH, &path, &json!({"disabled": false})).await;
    assert_eq!(gateway.used(&key).await, 1);
    assert_eq!(rogue.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_sponsor_key_costs_nothing_however_often() {
    for (status, why) in [(401, "key"), (402, "balance")] {
        let rejecting = move |_| Response::builder().status(status).body(full("")).unwrap();
        let upstream = Upstream::start(rejecting).await;
        let mut gateway = command(upstream.base_url()).start();
        let key = gateway.create_key(json!({"daily_limit": 1})).await;
        let mut wire = Wire::connect(gateway.address()).await.unwrap();
        for sent in 1..=4 {
            assert_eq!(wire.post(&key, "{}").await.unwrap().0, 502, "{why}");
            assert_eq!(gateway.used(&key).await, 0, "{why}, {sent}");
        }
        gateway.restart();
        assert_eq!(gateway.used(&key).await, 0, "{why}, after a restart");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_too_slow_keeps_the_charge() {
    let rogue = Rogue::start().await;
    let gateway = command(rogue.base_url())
        .env("UPSTREAM_HEAD_TIMEOUT", "300ms")
        .env("UPSTREAM_IDLE_TIMEOUT", "300ms")
        .start();
    let key = gateway.create_key(json!({"daily_limit": 9})).await;
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    assert_eq!(wire.post(&key, "hang").await.unwrap().0, 504);
    assert_eq!(gateway.used(&key).await, 1, "no head in time");
    wire.write(&key, "stream").await.unwrap();
    let head = wire.head().await.unwrap();
    assert_eq!(head.status, 200);
    assert!(wire.body(head).await.is_err(), "it does not end as if complete");
    assert_eq!(gateway.used(&key).await, 2, "a body that does not go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_never_reached_costs_nothing_however_often() {
    let closed = free_port();
    // Speaks no TLS: each handshake fails.
    let plain = Upstream::start(|_| Response::new(full(""))).await;
    for (outcome, base_url) in [
        ("a closed port", format!("http://127.0.0.1:{closed}/v1")),
        ("an unknown name", "http://no-such-host.invalid/v1".to_owned()),
        ("no TLS", format!("https://{}/v1", plain.address())),
    ] {
        let gateway = command(base_url).start();
        let key = gateway.create_key(json!({"daily_limit": 1})).await;
        for _ in 0..3 {
            let url = gateway.url("/v1/chat/completions");
            let response = Client::http1().post_as(&key, &url, &json!({})).await;
            assert_eq!(response.status, 502, "{outcome}: {response:?}");
            assert_eq!(response.code(), "upstream_unreachable", "{outcome}");
            assert_eq!(gateway.used(&key).await, 0, "{outcome}");
        }
    }
    assert_eq!(plain.count(), 0);
}
