//! The upstream's body breaks off, is malformed, or just odd.

use super::{
    rogue::Step::{Close, ReadBody, Reset, Send, Trickle},
    trial::{
        Kind,
        Outcome::{Cut, Response},
        kind, try_all,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_never_ends_as_if_complete() {
    static KINDS: &[Kind] = &[
        kind(
            "reset after the head",
            &[
                ReadBody,
                Send("HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nContent-Length: 99\r\n\r\n"),
                Reset,
            ],
            Cut(200, ""),
            1,
        ),
        kind(
            "closed after the head",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nTransfer-Encoding: chunked\r\n\r\n",
                ),
                Close,
            ],
            Cut(200, ""),
            1,
        ),
        kind(
            "shorter than its length",
            &[
                ReadBody,
                Send("HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nContent-Length: 14\r\n\r\n$BODY"),
                Close,
            ],
            Cut(200, "$BODY"),
            1,
        ),
        kind(
            "reset before its length",
            &[
                ReadBody,
                Send("HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nContent-Length: 14\r\n\r\n$BODY"),
                Reset,
            ],
            Cut(200, "$BODY"),
            1,
        ),
        kind(
            "chunks with no end",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n$BODY\r\n",
                ),
                Close,
            ],
            Cut(200, "$BODY"),
            1,
        ),
        kind(
            "half a chunk",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n$BODY",
                ),
                Close,
            ],
            Cut(200, "$BODY"),
            1,
        ),
        kind(
            "a last chunk with no last line",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nTransfer-Encoding: chunked\r\n\r\n\
                     d\r\n$BODY\r\n0\r\n",
                ),
                Close,
            ],
            Cut(200, "$BODY"),
            1,
        ),
        kind(
            "a chunk size that is no number",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nTransfer-Encoding: chunked\r\n\r\n\
                     d\r\n$BODY\r\nxyz\r\nbetween-us\r\n0\r\n\r\n",
                ),
            ],
            Cut(200, "$BODY"),
            1,
        ),
        kind(
            "a chunk size beyond all numbers",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nTransfer-Encoding: chunked\r\n\r\n\
                     d\r\n$BODY\r\nfffffffffffffffff\r\nbetween-us",
                ),
            ],
            Cut(200, "$BODY"),
            1,
        ),
        kind(
            "a chunk longer than its size",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nTransfer-Encoding: chunked\r\n\r\n\
                     d\r\n$BODYbetween-us\r\n0\r\n\r\n",
                ),
            ],
            Cut(200, "$BODY"),
            1,
        ),
        kind(
            "a reset where the end is the connection's",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\n\r\n$BODY"), Reset],
            Cut(200, "$BODY"),
            1,
        ),
        kind(
            "a rejection that breaks off",
            &[
                ReadBody,
                Send("HTTP/1.1 400 Bad\r\nContent-Type: $TYPE\r\nContent-Length: 14\r\n\r\n$BODY"),
                Close,
            ],
            Cut(400, "$BODY"),
            1,
        ),
    ];
    try_all(KINDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_but_valid_bodies_pass() {
    static KINDS: &[Kind] = &[
        kind(
            "HTTP/1.0, to the end of the connection",
            &[ReadBody, Send("HTTP/1.0 200 OK\r\nContent-Type: $TYPE\r\n\r\n$BODY"), Close],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "HTTP/1.1, to the end of the connection",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\n\r\n$BODY"), Close],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "connection: close",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: $TYPE\r\n\
                     Content-Length: 13\r\n\r\n$BODY",
                ),
                Close,
            ],
            Response(200, "$BODY"),
            1,
        )
        .showing(&[("connection", "")]),
        kind(
            "a body that comes byte by byte",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nTransfer-Encoding: chunked\r\n\r\n",
                ),
                Trickle("d\r\n$BODY\r\nd\r\n$BODY\r\n0\r\n\r\n"),
            ],
            Response(200, "$BODY$BODY"),
            1,
        ),
        kind(
            "chunk extensions and a size with zeros",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nTransfer-Encoding: chunked\r\n\r\n\
                     0000d;note=between-us\r\n$BODY\r\n0;x\r\n\r\n",
                ),
            ],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "trailers",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nTransfer-Encoding: chunked\r\n\
                     Trailer: X-Sum\r\n\r\nd\r\n$BODY\r\n0\r\nX-Sum: 1\r\n\r\n",
                ),
            ],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "an empty body in chunks",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")],
            Response(200, ""),
            1,
        ),
        kind(
            "a response before the body is read",
            &[
                Send("HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nContent-Length: 13\r\n\r\n$BODY"),
                ReadBody,
            ],
            Response(200, "$BODY"),
            1,
        ),
    ];
    try_all(KINDS).await;
}
