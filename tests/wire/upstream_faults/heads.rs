//! The upstream sends no head, or one that cannot be read.

use super::{
    rogue::Step::{Bytes, Close, ReadBody, Repeat, Reset, Send, Trickle},
    trial::{
        Kind,
        Outcome::{Error, Response},
        kind, try_all,
    },
};

const PROTOCOL: super::trial::Outcome = Error(502, "upstream_protocol");

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_end_before_the_head_does_are_a_protocol_error() {
    static KINDS: &[Kind] = &[
        kind("closed before the head", &[ReadBody, Close], PROTOCOL, 1),
        kind("reset before the head", &[ReadBody, Reset], PROTOCOL, 1),
        kind("closed before the body is read", &[Close], PROTOCOL, 1),
        kind(
            "closed within the head",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nX-Note: between-us\r\nConte"), Close],
            PROTOCOL,
            1,
        ),
        kind(
            "reset within the head",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nX-Note: between-us\r\nConte"), Reset],
            PROTOCOL,
            1,
        ),
        kind(
            "closed after an interim response",
            &[ReadBody, Send("HTTP/1.1 100 Continue\r\n\r\n"), Close],
            PROTOCOL,
            1,
        ),
    ];
    try_all(KINDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_http_is_a_protocol_error() {
    static KINDS: &[Kind] = &[
        kind(
            "a mail server",
            &[ReadBody, Send("220 between-us ESMTP\r\n\r\n"), Close],
            PROTOCOL,
            1,
        ),
        kind(
            "noise",
            &[ReadBody, Bytes(b"\x00\xff\x16\x03\x01between-us\n\n"), Close],
            PROTOCOL,
            1,
        ),
        kind(
            "the frames of HTTP/2",
            &[
                ReadBody,
                Bytes(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x10\x00\x00"),
                Close,
            ],
            PROTOCOL,
            1,
        ),
        kind(
            "the preface of HTTP/2",
            &[ReadBody, Send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Close],
            PROTOCOL,
            1,
        ),
        kind(
            "a body alone",
            &[ReadBody, Send("{\"note\":\"between-us\"}\r\n\r\n"), Close],
            PROTOCOL,
            1,
        ),
        kind(
            "a request",
            &[ReadBody, Send("POST /between-us HTTP/1.1\r\nHost: you\r\n\r\n"), Close],
            PROTOCOL,
            1,
        ),
        kind(
            "a status of letters",
            &[ReadBody, Send("HTTP/1.1 abc OK\r\n\r\n"), Close],
            PROTOCOL,
            1,
        ),
        kind(
            "a status of two digits",
            &[ReadBody, Send("HTTP/1.1 42 OK\r\n\r\n"), Close],
            PROTOCOL,
            1,
        ),
        kind(
            "a status of four digits",
            &[ReadBody, Send("HTTP/1.1 2000 OK\r\n\r\n"), Close],
            PROTOCOL,
            1,
        ),
        kind(
            "a status below 100",
            &[ReadBody, Send("HTTP/1.1 099 OK\r\n\r\n"), Close],
            PROTOCOL,
            1,
        ),
        kind("HTTP/3 on TCP", &[ReadBody, Send("HTTP/3.0 200 OK\r\n\r\n"), Close], PROTOCOL, 1),
    ];
    try_all(KINDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_or_unbounded_headers_are_a_protocol_error() {
    static KINDS: &[Kind] = &[
        kind(
            "a NUL in a value",
            &[
                ReadBody,
                Bytes(b"HTTP/1.1 200 OK\r\nX-Note: a\0b\r\nContent-Length: 0\r\n\r\n"),
                Close,
            ],
            PROTOCOL,
            1,
        ),
        kind(
            "a space in a name",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nX Note: a\r\nContent-Length: 0\r\n\r\n"), Close],
            PROTOCOL,
            1,
        ),
        kind(
            "a space before the colon",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"), Close],
            PROTOCOL,
            1,
        ),
        kind(
            "a line with no colon",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nbetween-us\r\nContent-Length: 0\r\n\r\n"), Close],
            PROTOCOL,
            1,
        ),
        kind(
            "a line in several lines",
            &[
                ReadBody,
                Send("HTTP/1.1 200 OK\r\nX-Note: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
                Close,
            ],
            PROTOCOL,
            1,
        ),
        kind(
            "a head of 1 MB in one line",
            &[
                ReadBody,
                Send("HTTP/1.1 200 OK\r\nX-Note: "),
                Repeat("between-us", 100_000),
                Send("\r\nContent-Length: 0\r\n\r\n"),
                Close,
            ],
            PROTOCOL,
            1,
        ),
        kind(
            "a head of 1 MB in lines",
            &[
                ReadBody,
                Send("HTTP/1.1 200 OK\r\n"),
                Repeat("X-Note: between-us\r\n", 50_000),
                Send("Content-Length: 0\r\n\r\n"),
                Close,
            ],
            PROTOCOL,
            1,
        ),
    ];
    try_all(KINDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_but_valid_heads_pass() {
    static KINDS: &[Kind] = &[
        kind(
            "a head that comes byte by byte",
            &[
                ReadBody,
                Trickle(
                    "HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nContent-Length: 13\r\n\r\n$BODY",
                ),
            ],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "no reason phrase",
            &[
                ReadBody,
                Send("HTTP/1.1 200\r\nContent-Type: $TYPE\r\nContent-Length: 13\r\n\r\n$BODY"),
            ],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "lines that end in LF alone",
            &[ReadBody, Send("HTTP/1.1 200 OK\nContent-Type: $TYPE\nContent-Length: 13\n\n$BODY")],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "bytes beyond ASCII in a value",
            &[
                ReadBody,
                Bytes(b"HTTP/1.1 200 OK\r\nX-Note: \xe4\xbd\xa0\r\nContent-Length: 2\r\n\r\n{}"),
            ],
            Response(200, "{}"),
            1,
        )
        .showing(&[("x-note", "你")]),
        kind(
            "names of this hop among the headers",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\n\
                     Upgrade: h2c\r\nX-Note: 1\r\nContent-Length: 2\r\n\r\n{}",
                ),
            ],
            Response(200, "{}"),
            1,
        )
        .showing(&[("x-hop", ""), ("keep-alive", ""), ("upgrade", ""), ("x-note", "1")]),
    ];
    try_all(KINDS).await;
}
