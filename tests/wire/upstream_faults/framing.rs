//! The length of the upstream's response is ambiguous, or it sends more than one.

use super::{
    rogue::Step::{Close, ReadBody, Send},
    trial::{
        Kind,
        Outcome::{Error, Response},
        kind, try_all,
    },
};

const PROTOCOL: super::trial::Outcome = Error(502, "upstream_protocol");

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_framing_is_a_protocol_error() {
    static KINDS: &[Kind] = &[
        kind(
            "two lengths that differ",
            &[
                ReadBody,
                Send("HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Length: 5\r\n\r\n$BODY"),
            ],
            PROTOCOL,
            1,
        ),
        kind(
            "a list of lengths that differ",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nContent-Length: 13, 5\r\n\r\n$BODY")],
            PROTOCOL,
            1,
        ),
        kind(
            "a length with a sign",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nContent-Length: +13\r\n\r\n$BODY")],
            PROTOCOL,
            1,
        ),
        kind(
            "a negative length",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n$BODY")],
            PROTOCOL,
            1,
        ),
        kind(
            "a length beyond all numbers",
            &[
                ReadBody,
                Send("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n$BODY"),
            ],
            PROTOCOL,
            1,
        ),
        kind(
            "a length shorter than the chunks",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n\
                     d\r\n$BODY\r\n0\r\n\r\n",
                ),
            ],
            PROTOCOL,
            1,
        ),
        kind(
            "a length longer than the chunks",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 50\r\n\r\n\
                     d\r\n$BODY\r\n0\r\n\r\n",
                ),
            ],
            PROTOCOL,
            1,
        ),
        kind(
            "a transfer coding that was not requested",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n\
                     d\r\n$BODY\r\n0\r\n\r\n",
                ),
            ],
            PROTOCOL,
            1,
        ),
        kind(
            "an unknown transfer coding",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n$BODY"), Close],
            PROTOCOL,
            1,
        ),
        kind(
            "chunked twice",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\
                     \r\nd\r\n$BODY\r\n0\r\n\r\n",
                ),
            ],
            PROTOCOL,
            1,
        ),
        kind(
            "chunks in HTTP/1.0",
            &[
                ReadBody,
                Send(
                    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n$BODY\r\n0\r\n\r\n",
                ),
                Close,
            ],
            PROTOCOL,
            1,
        ),
        kind(
            "a failure with two ways to end",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 500 No\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n\
                     a\r\nbetween-us\r\n0\r\n\r\n",
                ),
            ],
            PROTOCOL,
            1,
        ),
    ];
    try_all(KINDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_agree_are_one_length() {
    static KINDS: &[Kind] = &[
        kind(
            "the same length twice",
            &[
                ReadBody,
                Send("HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Length: 13\r\n\r\n$BODY"),
            ],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "the same length in a list",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nContent-Length: 13, 13\r\n\r\n$BODY")],
            Response(200, "$BODY"),
            1,
        ),
    ];
    try_all(KINDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_a_response_are_never_the_next_response() {
    static KINDS: &[Kind] = &[
        kind(
            "a few bytes more than the length",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n$BODY and more")],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "a second response that was not requested",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n$BODY\
                     HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbetween-us",
                ),
            ],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "a second response after chunks",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n$BODY\r\n0\r\n\r\n\
                     HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbetween-us",
                ),
            ],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "a response before the body is read, and a second one",
            &[
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n$BODY\
                     HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbetween-us",
                ),
                ReadBody,
            ],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "a failure and a second response",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\nbetween-us\
                     HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbetween-us",
                ),
            ],
            Error(500, "upstream_failed"),
            0,
        ),
        kind(
            "204 with a body",
            &[ReadBody, Send("HTTP/1.1 204 No Content\r\nContent-Length: 10\r\n\r\nbetween-us")],
            Response(204, ""),
            1,
        ),
        kind(
            "204 with chunks",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\na\r\nbetween-us\r\n0\r\n\r\n",
                ),
            ],
            Response(204, ""),
            1,
        ),
        kind(
            "304 with a body",
            &[ReadBody, Send("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\nbetween-us")],
            Error(502, "upstream_redirect"),
            0,
        ),
        kind(
            "HEAD with a body",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbetween-us")],
            Response(200, ""),
            1,
        )
        .with_method("HEAD"),
        kind(
            "HEAD without one",
            &[ReadBody, Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")],
            Response(200, ""),
            1,
        )
        .with_method("HEAD")
        .showing(&[("content-length", "10")]),
    ];
    try_all(KINDS).await;
}
