use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::{
    common::{DEADLINE, GatewayCommand, eventually},
    scene::Scene,
    socket::exchange,
};

/// Requests that are rejected, and whether what stands behind them may still be served. `KEY` is the
/// key, `BODY` a whole request that is only a body, with its length before it.
const REJECTED: [(&str, &str, bool); 14] = [
    ("no key", "POST /v1/x HTTP/1.1\r\nHost: a\r\nBODY", true),
    ("wrong key", "POST /v1/x HTTP/1.1\r\nHost: a\r\nX-Api-Key: no\r\nBODY", true),
    (
        "two keys",
        "POST /v1/x HTTP/1.1\r\nHost: a\r\nX-Api-Key: no\r\nX-Trial-Key: KEY\r\nBODY",
        true,
    ),
    ("no such path", "POST /nowhere HTTP/1.1\r\nHost: a\r\nBODY", true),
    ("no such method", "POST /usage HTTP/1.1\r\nHost: a\r\nBODY", true),
    ("no admin", "POST /admin/keys HTTP/1.1\r\nHost: a\r\nBODY", true),
    ("GET with a body", "GET /v1/x HTTP/1.1\r\nHost: a\r\nBODY", true),
    ("DELETE with a body", "DELETE /nowhere HTTP/1.1\r\nHost: a\r\nBODY", true),
    ("OPTIONS with a body", "OPTIONS /nowhere HTTP/1.1\r\nHost: a\r\nBODY", true),
    ("bad path", "POST /v1/../admin HTTP/1.1\r\nHost: a\r\nBODY", false),
    ("no host", "POST /v1/x HTTP/1.1\r\nBODY", false),
    ("TRACE", "TRACE /v1/x HTTP/1.1\r\nHost: a\r\nBODY", false),
    ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a\r\nBODY", false),
    ("too large", "POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", false),
];

/// The body of a rejected request is never read as a request, whether its length is declared or not,
/// and nothing behind a request that ends the connection is served.
#[tokio::test]
async fn the_body_of_a_rejected_request_is_no_request() {
    let scene = Scene::start().await;
    let mut exchanges = JoinSet::new();
    let request = |path: &str| {
        let key = &scene.key;
        format!(
            "POST /v1/{path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\
             Content-Length: 0\r\n\r\n"
        )
    };
    for (number, (name, first, goes_on)) in REJECTED.into_iter().enumerate() {
        let body = request("smuggled");
        let length = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let chunked =
            format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        for (kind, body) in [("length", length), ("chunks", chunked)] {
            let first = first.replace("KEY", &scene.key).replace("BODY", &body);
            let behind = request(&format!("behind/{number}/{kind}"));
            let bytes = first + &behind.replace("Host", "Connection: close\r\nHost");
            let gateway = scene.gateway.address();
            exchanges.spawn(async move {
                let outcome = exchange(gateway, bytes.as_bytes(), DEADLINE).await;
                (format!("{name}, {kind}"), format!("behind/{number}/{kind}"), goes_on, outcome)
            });
        }
    }
    for (name, behind, goes_on, outcome) in exchanges.join_all().await {
        assert!(outcome.closed, "{name}: {outcome:?}");
        let status = outcome.responses.first().map(|response| response.status);
        assert!(status.is_some_and(|status| (400..500).contains(&status)), "{name}: {outcome:?}");
        let served = scene.upstream.requests_to(&behind).len();
        assert!(served <= usize::from(goes_on), "{name}: {outcome:?}");
        assert_eq!(outcome.responses.len(), 1 + served, "{name}: {outcome:?}");
    }
    assert!(scene.upstream.requests_to("smuggled").is_empty());
    scene.assert_unharmed().await;
}

/// Many good requests at once on one connection: each is served once, in order.
#[tokio::test]
async fn good_requests_in_a_row_are_served_once_each() {
    let scene = Scene::start().await;
    let mut bytes = String::new();
    for number in 0..200 {
        let close = if number == 199 { "Connection: close\r\n" } else { "" };
        bytes += &format!(
            "\r\nPOST /v1/row/{number} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n{close}\
             Content-Length: 2\r\n\r\n{{}}",
            scene.key
        );
    }
    let outcome = exchange(scene.gateway.address(), bytes.as_bytes(), DEADLINE).await;
    assert_eq!(outcome.responses.len(), 200, "{:?}", outcome.responses.last());
    let seen = scene.upstream.requests_to("/row/");
    let in_order = (0..200).map(|number| format!("/base/v1/row/{number}"));
    assert!(seen.iter().map(|request| request.target().to_owned()).eq(in_order), "{seen:?}");
    scene.assert_unharmed().await;
}

/// A client that leaves is noticed while another request of its own waits, so that nothing is read
/// from it.
#[tokio::test]
async fn a_client_that_disconnects_after_its_request_releases_the_upstream() {
    let upstream = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let base_url = format!("http://{}/v1", upstream.local_addr().unwrap());
    let gateway = GatewayCommand::new().env("UPSTREAM_BASE_URL", base_url).start();
    let key = gateway.create_key(serde_json::json!({})).await;
    let request = format!("GET /v1/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n");
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    client.write_all(request.repeat(2).as_bytes()).await.unwrap();
    let (mut served, _) = upstream.accept().await.unwrap();
    assert_ne!(served.read(&mut [0; 1]).await.unwrap(), 0);
    drop(client);
    let left = async { while served.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} };
    timeout(DEADLINE, left).await.expect("the upstream is freed");
    eventually("the charge of the one request that was sent", || async {
        gateway.used(&key).await == 1
    })
    .await;
}
