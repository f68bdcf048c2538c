//! The upstream's responses are well-formed, but not those that were expected.

use super::{
    rogue::Step::{Close, ReadBody, Repeat, Send},
    trial::{
        Kind,
        Outcome::{Error, Response},
        kind, try_all,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_are_not_the_final_response() {
    static KINDS: &[Kind] = &[
        kind(
            "100, then 200",
            &[
                ReadBody,
                Send("HTTP/1.1 100 Continue\r\n\r\n"),
                Send("HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nContent-Length: 13\r\n\r\n$BODY"),
            ],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "102 and 103, then 200",
            &[
                ReadBody,
                Send("HTTP/1.1 102 Processing\r\n\r\n"),
                Send("HTTP/1.1 103 Early Hints\r\nLink: </between-us>\r\n\r\n"),
                Send("HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nContent-Length: 13\r\n\r\n$BODY"),
            ],
            Response(200, "$BODY"),
            1,
        )
        .showing(&[("link", "")]),
        kind(
            "10,000 of them in a row",
            &[
                ReadBody,
                Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 10_000),
                Send("HTTP/1.1 200 OK\r\nContent-Type: $TYPE\r\nContent-Length: 13\r\n\r\n$BODY"),
            ],
            Response(200, "$BODY"),
            1,
        ),
        kind(
            "103, then a failure",
            &[
                ReadBody,
                Send("HTTP/1.1 103 Early Hints\r\nLink: </between-us>\r\n\r\n"),
                Send("HTTP/1.1 503 No\r\nContent-Length: 10\r\n\r\nbetween-us"),
            ],
            Error(503, "upstream_failed"),
            0,
        ),
        kind(
            "101",
            &[
                ReadBody,
                Send(
                    "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbetween-us",
                ),
            ],
            Error(502, "upstream_protocol"),
            1,
        )
        .showing(&[("upgrade", "")]),
    ];
    try_all(KINDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_neither_followed_nor_forwarded() {
    macro_rules! redirect {
        ($status:literal) => {
            kind(
                concat!("redirect ", $status),
                &[
                    ReadBody,
                    Send(concat!(
                        "HTTP/1.1 ",
                        $status,
                        " Moved\r\nLocation: /v1/chat/completions?between-us\r\n\
                         Content-Length: 10\r\n\r\nbetween-us"
                    )),
                ],
                Error(502, "upstream_redirect"),
                0,
            )
            .showing(&[("location", "")])
        };
    }
    static KINDS: &[Kind] = &[
        redirect!("300"),
        redirect!("301"),
        redirect!("302"),
        redirect!("303"),
        redirect!("307"),
        redirect!("308"),
    ];
    try_all(KINDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_of_the_sponsor_do_not_blame_the_holder() {
    macro_rules! rejected {
        ($status:literal, $outcome:expr, $retry_after:literal) => {
            kind(
                concat!("rejected with ", $status),
                &[
                    ReadBody,
                    Send(concat!(
                        "HTTP/1.1 ",
                        $status,
                        " No\r\nWWW-Authenticate: Bearer between-us\r\nRetry-After: 17\r\n\
                         X-RateLimit-Remaining-Requests: 0\r\nSet-Cookie: a=between-us\r\n\
                         Content-Length: 36\r\n\r\nbetween-us: the key sk-sponsor-secret"
                    )),
                    Close,
                ],
                $outcome,
                0,
            )
            .showing(&[
                ("retry-after", $retry_after),
                ("www-authenticate", ""),
                ("set-cookie", ""),
            ])
        };
    }
    static KINDS: &[Kind] = &[
        rejected!("403", Error(502, "upstream_credentials"), ""),
        rejected!("429", Error(503, "upstream_rate_limited"), "17"),
        kind(
            "429 with text for a time",
            &[
                ReadBody,
                Send("HTTP/1.1 429 No\r\nRetry-After: <between-us>\r\nContent-Length: 0\r\n\r\n"),
            ],
            Error(503, "upstream_rate_limited"),
            0,
        )
        .showing(&[("retry-after", "")]),
    ];
    try_all(KINDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_keep_their_status_and_lose_their_text() {
    macro_rules! failed {
        ($status:literal, $code:literal) => {
            kind(
                concat!("failed with ", $status),
                &[
                    ReadBody,
                    Send(concat!(
                        "HTTP/1.1 ",
                        $status,
                        " No\r\nRetry-After: 3\r\nX-Note: between-us\r\nContent-Type: $TYPE\r\n\
                         Content-Length: 10\r\n\r\nbetween-us"
                    )),
                ],
                Error($code, "upstream_failed"),
                0,
            )
            .showing(&[("retry-after", "3"), ("x-note", "")])
        };
    }
    static KINDS: &[Kind] = &[
        failed!("500", 500),
        failed!("501", 501),
        failed!("502", 502),
        failed!("503", 503),
        failed!("504", 504),
        failed!("529", 529),
        failed!("599", 599),
        failed!("999", 999),
        kind(
            "a page of HTML",
            &[
                ReadBody,
                Send("HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\nContent-Type: text/html\r\n\r\n"),
                Send("<html><h1>502 Bad Gateway</h1>between-us"),
                Repeat("<!-- between-us -->", 10_000),
                Close,
            ],
            Error(502, "upstream_failed"),
            0,
        )
        .showing(&[("server", "")]),
        kind(
            "a failure that breaks off",
            &[ReadBody, Send("HTTP/1.1 500 No\r\nContent-Length: 99\r\n\r\nbetween-us"), Close],
            Error(500, "upstream_failed"),
            0,
        ),
        kind(
            "a failure in gzip that is none",
            &[
                ReadBody,
                Send("HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\nbetween-us"),
            ],
            Error(500, "upstream_failed"),
            0,
        )
        .showing(&[("content-encoding", "")]),
    ];
    try_all(KINDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_of_the_request_are_forwarded() {
    macro_rules! rejected {
        ($status:literal, $code:literal) => {
            kind(
                concat!("rejected with ", $status),
                &[
                    ReadBody,
                    Send(concat!(
                        "HTTP/1.1 ",
                        $status,
                        " No\r\nX-Note: 1\r\nX-Key: sk-sponsor-secret\r\nContent-Type: $TYPE\r\n\
                         Content-Length: 30\r\n\r\nsk-sponsor-secret$BODY"
                    )),
                ],
                Response($code, "*****************$BODY"),
                1,
            )
            .showing(&[("x-note", "1"), ("x-key", "")])
        };
    }
    static KINDS: &[Kind] = &[
        rejected!("400", 400),
        rejected!("404", 404),
        rejected!("405", 405),
        rejected!("408", 408),
        rejected!("409", 409),
        rejected!("413", 413),
        rejected!("422", 422),
        rejected!("451", 451),
    ];
    try_all(KINDS).await;
}
