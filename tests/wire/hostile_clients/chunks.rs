use tokio::task::JoinSet;

use super::{common::DEADLINE, scene::Scene, socket::exchange, upstream::BASE};

/// Chunked bodies that are none. Behind each of them stands a whole request.
const BAD_CHUNKS: [(&str, &str); 48] = [
    ("no size", "\r\nhello\r\n0\r\n\r\n"),
    ("size after a space", " 5\r\nhello\r\n0\r\n\r\n"),
    ("size after a tab", "\t5\r\nhello\r\n0\r\n\r\n"),
    ("size before a space", "5 \r\nhello\r\n0\r\n\r\n"),
    ("size before a tab", "5\t\r\nhello\r\n0\r\n\r\n"),
    ("size with plus", "+5\r\nhello\r\n0\r\n\r\n"),
    ("size with minus", "-5\r\nhello\r\n0\r\n\r\n"),
    ("size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
    ("size with a comma", "0,5\r\nhello\r\n0\r\n\r\n"),
    ("size with a point", "5.0\r\nhello\r\n0\r\n\r\n"),
    ("size in fullwidth", "\u{ff15}\r\nhello\r\n0\r\n\r\n"),
    ("size that is no number", "five\r\nhello\r\n0\r\n\r\n"),
    ("size after NUL", "\x005\r\nhello\r\n0\r\n\r\n"),
    ("size after a vertical tab", "\x0b5\r\nhello\r\n0\r\n\r\n"),
    ("size of 64 bits and one", "10000000000000000\r\nhello\r\n0\r\n\r\n"),
    ("size that wraps round", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("size that is negative in 64 bits", "fffffffffffffffb\r\nhello\r\n0\r\n\r\n"),
    ("size with endless zeros", "00000000000000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("size ends with LF", "5\nhello\r\n0\r\n\r\n"),
    ("size ends with CR", "5\rhello\r\n0\r\n\r\n"),
    ("size ends with CR CR LF", "5\r\r\nhello\r\n0\r\n\r\n"),
    ("size ends with LF CR", "5\n\rhello\r\n0\r\n\r\n"),
    ("data ends with LF", "5\r\nhello\n0\r\n\r\n"),
    ("data ends with CR", "5\r\nhello\r0\r\n\r\n"),
    ("data ends with nothing", "5\r\nhello0\r\n\r\n"),
    ("data ends with two other bytes", "5\r\nhelloXX0\r\n\r\n"),
    ("data too long", "5\r\nhello!\r\n0\r\n\r\n"),
    ("data too short", "6\r\nhello\r\n0\r\n\r\n"),
    ("last size ends with LF", "5\r\nhello\r\n0\n\r\n"),
    ("last line is LF", "5\r\nhello\r\n0\r\n\n"),
    ("last line is CR", "5\r\nhello\r\n0\r\n\rX"),
    ("extension ends with LF", "5;a=b\nhello\r\n0\r\n\r\n"),
    ("extension with LF within", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("extension with CR within", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("extension with NUL", "5;a\0b\r\nhello\r\n0\r\n\r\n"),
    ("extension before the size", ";a=b\r\n0\r\n\r\n"),
    ("two sizes before an extension", "5 5;a=b\r\nhello\r\n0\r\n\r\n"),
    ("extension on the last with LF", "5\r\nhello\r\n0;\n\r\n"),
    ("trailer ends with LF", "5\r\nhello\r\n0\r\na: b\n\r\n"),
    ("trailer ends with CR", "5\r\nhello\r\n0\r\na: b\r\r\n"),
    ("trailer with CR within", "5\r\nhello\r\n0\r\na: b\rc: d\r\n\r\n"),
    ("trailer with NUL", "5\r\nhello\r\n0\r\na: \0\r\n\r\n"),
    ("trailer without a colon", "5\r\nhello\r\n0\r\nGET /v1/smuggled HTTP/1.1\r\n\r\n"),
    ("trailer with a space in its name", "5\r\nhello\r\n0\r\na b: c\r\n\r\n"),
    ("trailer in several lines", "5\r\nhello\r\n0\r\na: b\r\n c\r\n\r\n"),
    ("a head for a chunk", "GET /v1/smuggled HTTP/1.1\r\n\r\n"),
    ("JSON for a chunk", "{\"model\":\"m\"}\r\n\r\n"),
];

/// Bodies that are strange and have one meaning: `hello`.
const GOOD_CHUNKS: [(&str, &str); 11] = [
    ("one chunk", "5\r\nhello\r\n0\r\n\r\n"),
    ("zeros before the size", "0005\r\nhello\r\n000\r\n\r\n"),
    ("an extension", "5;a=b;c=\"d e\"\r\nhello\r\n0;x\r\n\r\n"),
    ("an extension after a space", "5 ;a=b\r\nhello\r\n0\t;x\r\n\r\n"),
    ("an extension with spaces", "5 \t ; a = b ; c\r\nhello\r\n0\r\n\r\n"),
    ("an empty extension", "5;\r\nhello\r\n0\r\n\r\n"),
    ("a trailer", "5\r\nhello\r\n0\r\na: b\r\n\r\n"),
    ("a trailer that frames", "5\r\nhello\r\n0\r\nContent-Length: 100\r\n\r\n"),
    ("a trailer that codes", "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("a trailer that presents a key", "5\r\nhello\r\n0\r\nAuthorization: Bearer other\r\n\r\n"),
    ("single bytes", "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n"),
];

fn requests(scene: &Scene, path: &str, chunks: &str) -> String {
    let key = &scene.key;
    format!(
        "POST /v1/{path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n\
         Transfer-Encoding: chunked\r\nTrailer: content-length, transfer-encoding, authorization\r\n\
         \r\n{chunks}\
         POST /v1/{path}/behind HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n\
         Connection: close\r\nContent-Length: 0\r\n\r\n"
    )
}

#[tokio::test]
async fn an_invalid_chunk_closes_the_connection_and_hides_no_request() {
    let scene = Scene::start().await;
    let mut exchanges = JoinSet::new();
    for (number, (name, chunks)) in BAD_CHUNKS.into_iter().enumerate() {
        let requests = requests(&scene, &format!("bad/{number}"), chunks);
        let gateway = scene.gateway.address();
        exchanges.spawn(async move {
            (number, name, exchange(gateway, requests.as_bytes(), DEADLINE).await)
        });
    }
    for (number, name, outcome) in exchanges.join_all().await {
        assert!(outcome.closed && outcome.rest.is_empty(), "{name}: {outcome:?}");
        assert!(outcome.responses.len() <= 1, "{name}: {outcome:?}");
        for response in &outcome.responses {
            assert!((400..500).contains(&response.status), "{name}: {outcome:?}");
            response.error_code();
        }
        let mut begun = scene.upstream.requests();
        begun.retain(|request| request.target() == format!("{BASE}/bad/{number}"));
        assert!(
            begun.len() <= 1 && begun.iter().all(|request| !request.whole),
            "{name}: {begun:?}"
        );
    }
    let behind = [scene.upstream.requests_to("behind"), scene.upstream.requests_to("smuggled")];
    assert!(behind.iter().all(Vec::is_empty), "{behind:?}");
    scene.assert_unharmed().await;
}

#[tokio::test]
async fn chunks_are_taken_by_their_sizes_and_trailers_change_nothing() {
    let scene = Scene::start().await;
    for (number, (name, chunks)) in GOOD_CHUNKS.into_iter().enumerate() {
        let path = format!("good/{number}");
        let requests = requests(&scene, &path, chunks);
        let outcome = exchange(scene.gateway.address(), requests.as_bytes(), DEADLINE).await;
        let statuses: Vec<u16> = outcome.responses.iter().map(|response| response.status).collect();
        assert_eq!(statuses, [200, 200], "{name}: {outcome:?}");
        let seen = scene.upstream.requests_to(&path);
        assert_eq!(seen.len(), 2, "{name}: {seen:?}");
        assert!(seen[0].whole && seen[0].body == b"hello", "{name}: {seen:?}");
    }
    scene.assert_unharmed().await;
}
