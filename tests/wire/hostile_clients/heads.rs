use tokio::task::JoinSet;

use super::{
    common::DEADLINE,
    scene::Scene,
    socket::{Exchange, exchange},
    vectors::{BAD_FIRST_LINES, BAD_LINES, BAD_TARGETS, GOOD_LINES},
};

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

/// Sends all at once, each on a connection of its own, and asserts that every one is rejected.
async fn assert_all_are_rejected(requests: Vec<(String, String)>) {
    let scene = Scene::start().await;
    let mut exchanges = JoinSet::new();
    for (name, request) in requests {
        let request = request.replace("KEY", &scene.key) + BODY + &smuggled(&scene);
        let gateway = scene.gateway.address();
        exchanges
            .spawn(async move { (name, exchange(gateway, request.as_bytes(), DEADLINE).await) });
    }
    for (name, outcome) in exchanges.join_all().await {
        outcome.assert_rejected(&name);
    }
    assert_eq!(scene.upstream.requests().len(), 0, "{:?}", scene.upstream.requests());
    scene.assert_unharmed().await;
}

fn post(lines: &str) -> String {
    format!("POST /v1/x HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer KEY\r\n{lines}\r\n")
}

#[tokio::test]
async fn lines_that_leave_the_end_of_the_body_open_are_rejected() {
    let requests = BAD_LINES.map(|(name, lines)| (name.to_owned(), post(lines)));
    assert_all_are_rejected(requests.into()).await;
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
    assert_all_are_rejected(requests.into()).await;
}

#[tokio::test]
async fn invalid_first_lines_are_rejected() {
    let requests = BAD_FIRST_LINES.map(|(name, line)| {
        let line = line.replace('@', "/v1/x");
        (name.to_owned(), post("").replace("POST /v1/x HTTP/1.1\r\n", &line))
    });
    assert_all_are_rejected(requests.into()).await;
}

#[tokio::test]
async fn targets_that_are_not_a_path_are_rejected() {
    let requests =
        BAD_TARGETS.map(|(name, target)| (name.to_owned(), post("").replace("/v1/x", target)));
    assert_all_are_rejected(requests.into()).await;
}

/// Lines end with CR LF, at each of the places where a line ends.
#[tokio::test]
async fn every_other_end_of_a_line_is_rejected() {
    let good = post("Content-Length: 6\r\nA: b\r\n");
    let ends: Vec<usize> = good.match_indices("\r\n").map(|(at, _)| at).collect();
    let mut requests = Vec::new();
    for (number, &at) in ends.iter().enumerate() {
        for end in ["\n", "\r", "\r\r\n", "\n\r", "\0\r\n", "\x0b\r\n", "\r\0\n", "\r \n"] {
            let request = format!("{}{end}{}", &good[..at], &good[at + 2..]);
            requests.push((format!("{end:?} at the end of line {number}"), request));
        }
    }
    assert_all_are_rejected(requests).await;
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
            (number, name, exchange(gateway, requests.as_bytes(), DEADLINE).await)
        });
    }
    for (number, name, outcome) in exchanges.join_all().await {
        assert_passed(&scene, number, name, &outcome);
    }
    assert_eq!(scene.upstream.requests().len(), 2 * GOOD_LINES.len());
    scene.assert_unharmed().await;
}

fn assert_passed(scene: &Scene, number: usize, name: &str, outcome: &Exchange) {
    let statuses: Vec<u16> = outcome.responses.iter().map(|response| response.status).collect();
    assert_eq!(statuses, [200, 200], "{name}: {outcome:?}");
    assert!(outcome.closed && outcome.rest.is_empty(), "{name}: {outcome:?}");
    for (path, body) in [("first", BODY), ("next", "{}")] {
        let requests = scene.upstream.requests_to(&format!("/good/{number}/{path}"));
        assert_eq!(requests.len(), 1, "{name}: {requests:?}");
        assert!(requests[0].whole && requests[0].body == body.as_bytes(), "{name}: {requests:?}");
    }
}
