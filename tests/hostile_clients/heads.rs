use std::time::Duration;

use tokio::task::JoinSet;

use super::{
    scene::Scene,
    socket::{Exchange, exchange},
};

const SOON: Duration = Duration::from_secs(5);

/// Header lines of which servers are known to disagree where the body ends, or that are no lines at
/// all.
const BAD_LINES: [(&str, &str); 83] = [
    ("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"),
    ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n"),
    ("CL.TE, length 0", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
    ("CL.TE, other case", "cONTENT-lENGTH: 6\r\ntRANSFER-eNCODING: CHUNKED\r\n"),
    ("CL.TE, tab", "Content-Length: 6\r\nTransfer-Encoding:\tchunked\r\n"),
    ("CL.TE, far apart", "Content-Length: 6\r\nA: b\r\nC: d\r\nTransfer-Encoding: chunked\r\n"),
    (
        "CL.TE, expecting",
        "Expect: 100-continue\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "CL.TE, nominated",
        "Connection: content-length\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n",
    ),
    ("CL.TE, identity", "Content-Length: 6\r\nTransfer-Encoding: identity\r\n"),
    ("CL.TE, unknown coding", "Content-Length: 6\r\nTransfer-Encoding: cow\r\n"),
    ("TE.TE, twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    ("TE.TE, identity last", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
    ("TE.TE, identity first", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
    ("TE.TE, unknown last", "Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n"),
    ("TE.TE, one empty", "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n"),
    ("TE empty", "Transfer-Encoding:\r\n"),
    ("TE identity", "Transfer-Encoding: identity\r\n"),
    ("TE xchunked", "Transfer-Encoding: xchunked\r\n"),
    ("TE chunkedx", "Transfer-Encoding: chunkedx\r\n"),
    ("TE chunk", "Transfer-Encoding: chunk\r\n"),
    ("TE identity, chunked", "Transfer-Encoding: identity, chunked\r\n"),
    ("TE chunked, identity", "Transfer-Encoding: chunked, identity\r\n"),
    ("TE gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n"),
    ("TE chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n"),
    ("TE chunked chunked", "Transfer-Encoding: chunked chunked\r\n"),
    ("TE with a comma behind", "Transfer-Encoding: chunked,\r\n"),
    ("TE with a comma before", "Transfer-Encoding: ,chunked\r\n"),
    ("TE with a parameter", "Transfer-Encoding: chunked;q=0.5\r\n"),
    ("TE in double quotes", "Transfer-Encoding: \"chunked\"\r\n"),
    ("TE in single quotes", "Transfer-Encoding: 'chunked'\r\n"),
    ("TE in brackets", "Transfer-Encoding: [chunked]\r\n"),
    ("TE after a vertical tab", "Transfer-Encoding: \x0bchunked\r\n"),
    ("TE before a vertical tab", "Transfer-Encoding: chunked\x0b\r\n"),
    ("TE after a form feed", "Transfer-Encoding: \x0cchunked\r\n"),
    ("TE before NUL", "Transfer-Encoding: chunked\0\r\n"),
    ("TE before DEL", "Transfer-Encoding: chunked\x7f\r\n"),
    ("TE before a hard space", "Transfer-Encoding: chunked\u{a0}\r\n"),
    ("TE in fullwidth", "Transfer-Encoding: \u{ff43}hunked\r\n"),
    ("TE with a long s for nothing", "Transfer-Encoding: chun\u{212a}ed\r\n"),
    ("TE before a space", "Transfer-Encoding : chunked\r\n"),
    ("TE before a tab", "Transfer-Encoding\t: chunked\r\n"),
    ("TE name before NUL", "Transfer-Encoding\0: chunked\r\n"),
    ("TE name after a space", " Transfer-Encoding: chunked\r\n"),
    ("TE name after a tab", "\tTransfer-Encoding: chunked\r\n"),
    ("TE folded", "Transfer-Encoding:\r\n chunked\r\n"),
    ("TE folded by a tab", "Transfer-Encoding:\r\n\tchunked\r\n"),
    ("TE folded within", "Transfer-Encoding: chun\r\n ked\r\n"),
    ("TE as a fold", "A: b\r\n Transfer-Encoding: chunked\r\n"),
    ("TE behind a bare CR", "A: b\rTransfer-Encoding: chunked\r\n"),
    ("TE behind a bare LF", "A: b\nTransfer-Encoding: chunked\r\n"),
    ("TE before a bare CR", "Transfer-Encoding: chunked\rA: b\r\n"),
    ("TE before a bare LF", "Transfer-Encoding: chunked\nA: b\r\n"),
    ("CL twice the same", "Content-Length: 6\r\nContent-Length: 6\r\n"),
    ("CL twice", "Content-Length: 6\r\nContent-Length: 7\r\n"),
    ("CL twice, first 0", "Content-Length: 0\r\nContent-Length: 6\r\n"),
    ("CL list of the same", "Content-Length: 6, 6\r\n"),
    ("CL list", "Content-Length: 6, 7\r\n"),
    ("CL list without space", "Content-Length: 0,6\r\n"),
    ("CL with plus", "Content-Length: +6\r\n"),
    ("CL with minus", "Content-Length: -6\r\n"),
    ("CL minus 0", "Content-Length: -0\r\n"),
    ("CL hexadecimal", "Content-Length: 0x6\r\n"),
    ("CL hexadecimal digits", "Content-Length: 1a\r\n"),
    ("CL with a space within", "Content-Length: 1 6\r\n"),
    ("CL with a tab within", "Content-Length: 1\t6\r\n"),
    ("CL with an underscore", "Content-Length: 1_6\r\n"),
    ("CL with a point", "Content-Length: 6.0\r\n"),
    ("CL with an exponent", "Content-Length: 1e1\r\n"),
    ("CL quoted", "Content-Length: \"6\"\r\n"),
    ("CL with a parameter", "Content-Length: 6;x\r\n"),
    ("CL empty", "Content-Length:\r\n"),
    ("CL blank", "Content-Length: \t \r\n"),
    ("CL in fullwidth", "Content-Length: \u{ff16}\r\n"),
    ("CL after a vertical tab", "Content-Length: \x0b6\r\n"),
    ("CL before NUL", "Content-Length: 6\0\r\n"),
    ("CL above 64 bits", "Content-Length: 18446744073709551622\r\n"),
    ("CL far above 64 bits", "Content-Length: 99999999999999999999999999999999\r\n"),
    ("CL above 32 bits", "Content-Length: 4294967302\r\n"),
    ("CL folded", "Content-Length:\r\n 6\r\n"),
    ("CL folded within", "Content-Length: 6\r\n 7\r\n"),
    ("CL before a space", "Content-Length : 6\r\n"),
    ("CL without a colon", "Content-Length 6\r\n"),
    ("CL behind a bare CR", "A: b\rContent-Length: 6\r\n"),
];

/// First lines that are none, with `@` for the path.
const BAD_FIRST_LINES: [(&str, &str); 22] = [
    ("HTTP/0.9", "POST @\r\n"),
    ("HTTP/0.9 by name", "POST @ HTTP/0.9\r\n"),
    ("HTTP/2 by name", "POST @ HTTP/2.0\r\n"),
    ("HTTP/1.2", "POST @ HTTP/1.2\r\n"),
    ("HTTP/1.10", "POST @ HTTP/1.10\r\n"),
    ("HTTP/01.1", "POST @ HTTP/01.1\r\n"),
    ("http in lower case", "POST @ http/1.1\r\n"),
    ("another protocol", "POST @ ICY/1.1\r\n"),
    ("no version", "POST @ HTTP/\r\n"),
    ("a space behind", "POST @ HTTP/1.1 \r\n"),
    ("words behind", "POST @ HTTP/1.1 HTTP/1.0\r\n"),
    ("a tab for a space", "POST\t@ HTTP/1.1\r\n"),
    ("a tab before the version", "POST @\tHTTP/1.1\r\n"),
    ("two words for a target", "POST @ /x HTTP/1.1\r\n"),
    ("no target", "POST HTTP/1.1\r\n"),
    ("a space before", " POST @ HTTP/1.1\r\n"),
    ("a bare LF before", "\nPOST @ HTTP/1.1\r\n"),
    ("a bare CR before", "\rPOST @ HTTP/1.1\r\n"),
    ("NUL in the target", "POST @\0 HTTP/1.1\r\n"),
    ("a vertical tab in the target", "POST @\x0b HTTP/1.1\r\n"),
    ("a colon in the method", "PO:ST @ HTTP/1.1\r\n"),
    ("brackets in the method", "PO(ST) @ HTTP/1.1\r\n"),
];

/// Targets that are no path.
const BAD_TARGETS: [(&str, &str); 12] = [
    ("absolute", "http://gateway/v1/chat"),
    ("absolute, of somebody else", "http://internal.example/v1/chat"),
    ("absolute, https", "https://gateway/v1/chat"),
    ("absolute, other scheme", "file:///etc/passwd"),
    ("absolute, user", "http://user@gateway/v1/chat"),
    ("authority", "gateway:80"),
    ("asterisk", "*"),
    ("network path", "//gateway/v1/chat"),
    ("relative", "v1/chat"),
    ("query only", "?v1/chat"),
    ("backslash", "\\v1\\chat"),
    ("empty port", "gateway:"),
];

/// Lines that look dangerous but say one thing only. The body is the six bytes `0\r\n\r\nG`, or
/// one chunk of them.
const GOOD_LINES: [(&str, &str); 24] = [
    ("CL", "Content-Length: 6\r\n"),
    ("CL with zeros", "Content-Length: 0006\r\n"),
    ("CL between tabs", "Content-Length:\t6\t\r\n"),
    ("CL without space", "Content-Length:6\r\n"),
    ("CL nominated", "Connection: content-length\r\nContent-Length: 6\r\n"),
    ("CL beside an underscore", "Content-Length: 6\r\nContent_Length: 0\r\n"),
    ("CL beside a prefix", "Content-Length: 6\r\nX-Transfer-Encoding: chunked\r\n"),
    ("CL beside TE with an underscore", "Content-Length: 6\r\nTransfer_Encoding: chunked\r\n"),
    ("CL beside TE as a value", "Content-Length: 6\r\nA: Transfer-Encoding: chunked\r\n"),
    ("CL beside NEL", "Content-Length: 6\r\nA: b\u{85}Transfer-Encoding: chunked\r\n"),
    ("CL expecting", "Content-Length: 6\r\nExpect: 100-continue\r\n"),
    ("CL expecting something else", "Content-Length: 6\r\nExpect: 999-miracle\r\n"),
    ("CL, method overridden", "Content-Length: 6\r\nX-HTTP-Method-Override: GET\r\n"),
    ("CL, address overridden", "Content-Length: 6\r\nX-Original-URL: /admin/keys\r\n"),
    ("CL, host nominated", "Content-Length: 6\r\nConnection: host, authorization\r\n"),
    (
        "CL, h2c offered",
        "Content-Length: 6\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    ),
    ("CL, h2c offered alone", "Content-Length: 6\r\nUpgrade: h2c\r\n"),
    ("CL, TLS offered", "Content-Length: 6\r\nConnection: upgrade\r\nUpgrade: TLS/1.0\r\n"),
    (
        "CL, proxied connection",
        "Content-Length: 6\r\nProxy-Connection: keep-alive\r\nKeep-Alive: 5\r\n",
    ),
    ("TE", "Transfer-Encoding: chunked\r\n"),
    ("TE in capitals", "TRANSFER-ENCODING: CHUNKED\r\n"),
    ("TE between tabs", "Transfer-Encoding:\t chunked \t\r\n"),
    ("TE nominated", "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n"),
    (
        "TE with trailers",
        "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\nTE: trailers, chunked\r\n",
    ),
];

/// What every request of a table has for a body: nothing to one reader, and the begin of another
/// request to the next.
const BODY: &str = "0\r\n\r\nG";

fn head(scene: &Scene, first: &str, lines: &str) -> String {
    format!("{first}Host: gateway\r\nAuthorization: Bearer {}\r\n{lines}\r\n", scene.key)
}

/// A request that must not be served if it comes behind a bad one.
fn smuggled(scene: &Scene) -> String {
    head(scene, "POST /v1/smuggled HTTP/1.1\r\n", "Content-Length: 0\r\n")
}

/// Sends all at once, each on a connection of its own, and asserts that every one is refused.
async fn assert_all_are_refused(requests: Vec<(String, String)>) {
    let scene = Scene::start().await;
    let mut exchanges = JoinSet::new();
    for (name, request) in requests {
        let request = request.replace("KEY", &scene.key) + BODY + &smuggled(&scene);
        let gateway = scene.gateway.address();
        exchanges.spawn(async move { (name, exchange(gateway, request.as_bytes(), SOON).await) });
    }
    for (name, outcome) in exchanges.join_all().await {
        outcome.assert_refused(&name);
    }
    assert_eq!(scene.upstream.requests().len(), 0, "{:?}", scene.upstream.requests());
    scene.assert_unharmed().await;
}

fn post(lines: &str) -> String {
    format!("POST /v1/x HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer KEY\r\n{lines}\r\n")
}

#[tokio::test]
async fn lines_that_leave_the_end_of_the_body_open_are_refused() {
    let requests = BAD_LINES.map(|(name, lines)| (name.to_owned(), post(lines)));
    assert_all_are_refused(requests.into()).await;
}

#[tokio::test]
async fn http_1_0_has_no_chunks() {
    let requests = [
        ("TE", "Transfer-Encoding: chunked\r\n"),
        ("TE, kept alive", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"),
        ("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"),
    ];
    let requests = requests
        .map(|(name, lines)| (name.to_owned(), post(lines).replace("HTTP/1.1", "HTTP/1.0")));
    assert_all_are_refused(requests.into()).await;
}

#[tokio::test]
async fn first_lines_that_are_none_are_refused() {
    let requests = BAD_FIRST_LINES.map(|(name, line)| {
        let line = line.replace('@', "/v1/x");
        (name.to_owned(), post("").replace("POST /v1/x HTTP/1.1\r\n", &line))
    });
    assert_all_are_refused(requests.into()).await;
}

#[tokio::test]
async fn targets_that_are_no_path_are_refused() {
    let requests =
        BAD_TARGETS.map(|(name, target)| (name.to_owned(), post("").replace("/v1/x", target)));
    assert_all_are_refused(requests.into()).await;
}

/// Lines end with CR LF, at each of the places where a line ends.
#[tokio::test]
async fn every_other_end_of_a_line_is_refused() {
    let good = post("Content-Length: 6\r\nA: b\r\n");
    let ends: Vec<usize> = good.match_indices("\r\n").map(|(at, _)| at).collect();
    let mut requests = Vec::new();
    for (number, &at) in ends.iter().enumerate() {
        for end in ["\n", "\r", "\r\r\n", "\n\r", "\0\r\n", "\x0b\r\n", "\r\0\n", "\r \n"] {
            let request = format!("{}{end}{}", &good[..at], &good[at + 2..]);
            requests.push((format!("{end:?} at the end of line {number}"), request));
        }
    }
    assert_all_are_refused(requests).await;
}

/// What is fine goes to the upstream once, with the body that it has, and the next request on the
/// connection is found.
#[tokio::test]
async fn lines_that_only_look_dangerous_pass_with_one_meaning() {
    let scene = Scene::start().await;
    let mut exchanges = JoinSet::new();
    for (number, (name, lines)) in GOOD_LINES.into_iter().enumerate() {
        let first = format!("POST /v1/good/{number}/first HTTP/1.1\r\n");
        let next = format!("POST /v1/good/{number}/next HTTP/1.1\r\n");
        let is_chunked = name.starts_with("TE");
        let body = match is_chunked {
            true => format!("6\r\n{BODY}\r\n0\r\nContent-Length: 90\r\n\r\n"),
            false => BODY.to_owned(),
        };
        let next = head(&scene, &next, "Connection: close\r\nContent-Length: 2\r\n") + "{}";
        let requests = head(&scene, &first, lines) + &body + &next;
        let gateway = scene.gateway.address();
        exchanges.spawn(async move {
            (number, name, exchange(gateway, requests.as_bytes(), SOON).await)
        });
    }
    for (number, name, outcome) in exchanges.join_all().await {
        assert_passed(&scene, number, name, &outcome);
    }
    assert_eq!(scene.upstream.requests().len(), 2 * GOOD_LINES.len());
    scene.assert_unharmed().await;
}

fn assert_passed(scene: &Scene, number: usize, name: &str, outcome: &Exchange) {
    let statuses: Vec<u16> = outcome.answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200], "{name}: {outcome:?}");
    assert!(outcome.closed && outcome.rest.is_empty(), "{name}: {outcome:?}");
    for (path, body) in [("first", BODY), ("next", "{}")] {
        let requests = scene.upstream.requests_to(&format!("/good/{number}/{path}"));
        assert_eq!(requests.len(), 1, "{name}: {requests:?}");
        assert!(requests[0].whole && requests[0].body == body.as_bytes(), "{name}: {requests:?}");
    }
}
