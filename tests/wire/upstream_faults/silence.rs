//! The upstream stops saying anything.

use super::{
    rogue::Step::{Hang, ReadBody, Send, Trickle},
    trial::{
        Kind,
        Outcome::{Cut, Error},
        kind, try_all_at_once,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_upstream_times_out() {
    const TIMEOUT: super::trial::Outcome = Error(504, "upstream_timeout");
    static KINDS: &[Kind] = &[
        kind("before the head", &[ReadBody, Hang], TIMEOUT, 1),
        kind("before the body is read", &[Hang], TIMEOUT, 1),
        kind(
            "within the head",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nX-Note: between-us\r\nConte"), Hang],
            TIMEOUT,
            1,
        ),
        kind(
            "within a head that came byte by byte",
            &[ReadBody, Trickle("HTTP/1.1 200 OK\r\nX-Note: between-us\r\nConte"), Hang],
            TIMEOUT,
            1,
        ),
        kind("after 100", &[ReadBody, Send("HTTP/1.1 100 Continue\r\n\r\n"), Hang], TIMEOUT, 1),
        kind(
            "after the head",
            &[
                ReadBody,
                Send("HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nContent-Length: 13\r\n\r\n"),
                Hang,
            ],
            Cut(200, ""),
            1,
        ),
        kind(
            "within a body of known length",
            &[
                ReadBody,
                Send("HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nContent-Length: 14\r\n\r\n$BODY"),
                Hang,
            ],
            Cut(200, "$BODY"),
            1,
        ),
        kind(
            "within chunks",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n$BODY\r\n",
                ),
                Hang,
            ],
            Cut(200, "$BODY"),
            1,
        ),
        kind(
            "where the end is the connection's",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\n\r\n$BODY"), Hang],
            Cut(200, "$BODY"),
            1,
        ),
        kind(
            "within a rejection",
            &[
                ReadBody,
                Send("HTTP/1.1 400 No\r\nContent-Type: $TYPE\r\nContent-Length: 14\r\n\r\n$BODY"),
                Hang,
            ],
            Cut(400, "$BODY"),
            1,
        ),
        kind(
            "within a failure",
            &[ReadBody, Send("HTTP/1.1 500 No\r\nContent-Length: 99\r\n\r\nbetween-us"), Hang],
            Error(500, "upstream_failed"),
            0,
        ),
    ];
    try_all_at_once(KINDS, "1s").await;
}
