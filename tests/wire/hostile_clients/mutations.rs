use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::{
    common::Random,
    frames::{self, DATA, END_STREAM, Frames, Outcome, PREFACE, SETTINGS},
    scene::{CLIENT_TIMEOUT, HEAD_LIMIT, SLACK, Scene},
    socket::exchange,
};

const HTTP1: usize = 8000;
const HTTP2: usize = 2000;
/// Connections at once.
const CLIENTS: usize = 400;
const PAUSE: Duration = Duration::from_millis(500);

/// What is put in somewhere.
const TOKENS: [&[u8]; 32] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"/",
    b"//",
    b"/../",
    b"%2e%2e/",
    b"%",
    b"%00",
    b"\\",
    b"\xff",
    b"\xc0\xae",
    b"\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"Connection: close\r\n",
    b"HTTP/1.1",
    b"0",
    b"9",
    b"-",
    b"0x",
    b"18446744073709551616",
    b"0\r\n\r\n",
    b"Expect: 100-continue\r\n",
    b"\x0b",
];

/// Good requests, each whole.
fn good_requests(key: &str) -> Vec<Vec<u8>> {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
    let length = body.len();
    let head =
        format!("Host: gateway\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json");
    [
        format!("POST /v1/chat/completions HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}"),
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\n{head}\r\nTransfer-Encoding: chunked\r\n\r\n\
             {length:x};a=b\r\n{body}\r\n0\r\nX-Trailer: c\r\n\r\n"
        ),
        format!("GET /v1/models/m%2Fn?limit=3&after=%20 HTTP/1.1\r\n{head}\r\nAccept: */*\r\n\r\n"),
        format!("POST /embeddings HTTP/1.1\r\n{head}\r\nX-Api-Key: {key}\r\nContent-Length: 2\r\n\r\n{{}}"),
        format!("DELETE /v1/files/f HTTP/1.0\r\n{head}\r\nConnection: keep-alive, x-a\r\nX-A: b\r\n\r\n"),
    ]
    .map(String::into_bytes)
    .into()
}

/// The same with one to four changes. None of them makes two requests of one.
fn mutated(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.bytes(1)[0],
            2 => drop(bytes.remove(at)),
            3 => {
                let token = TOKENS[random.below(TOKENS.len() as u64) as usize];
                bytes.splice(at..at, token.iter().copied());
            }
            4 => {
                let end = (at + 1 + random.below(12) as usize).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + 1 + random.below(24) as usize).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
        if bytes.is_empty() {
            return good.to_vec();
        }
    }
    bytes
}

/// Takes the jobs one after the other, many at a time.
async fn in_parallel<F>(jobs: Vec<Vec<u8>>, run: impl Fn(Vec<u8>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut running = JoinSet::new();
    for job in jobs {
        while running.len() >= CLIENTS {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(run(job));
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn damaged_requests_are_rejected_or_served_once() {
    let scene = Scene::start().await;
    let mut random = Random::seeded("damaged_requests_are_rejected_or_served_once");
    let good = good_requests(&scene.key);
    // It ends a head that has lost its end, so that few have to be waited for.
    let end = b"\r\n\r\nGET /healthz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n";
    let jobs = (0..HTTP1).map(|_| {
        let one = &good[random.below(good.len() as u64) as usize];
        [&mutated(one, &mut random)[..], end].concat()
    });
    let gateway = scene.gateway.address();
    let served = Arc::new(AtomicUsize::new(0));
    in_parallel(jobs.collect(), |bytes| {
        let served = served.clone();
        async move {
            let outcome = exchange(gateway, &bytes, HEAD_LIMIT + SLACK).await;
            let sent = String::from_utf8_lossy(&bytes);
            assert!(outcome.closed, "not closed: {sent:?}\n{outcome:?}");
            for response in &outcome.responses {
                assert!(response.status < 500, "{sent:?}\n{outcome:?}");
            }
            let good = outcome
                .responses
                .iter()
                .filter(|response| response.status == 200 && response.body == b"{}");
            served.fetch_add(good.count(), Ordering::Relaxed);
        }
    })
    .await;
    let seen = scene.upstream.requests();
    let whole = seen.iter().filter(|request| request.whole).count();
    let served = served.load(Ordering::Relaxed);
    assert!(seen.len() <= HTTP1, "{} requests of {HTTP1}", seen.len());
    // A request may reach the upstream completely although its client does not wait for the response.
    assert!(served <= whole && served > HTTP1 / 20, "{served} responses to {whole} requests");
    scene.assert_unharmed().await;
}

#[tokio::test]
async fn damaged_frames_are_rejected_or_served_once() {
    let scene = Scene::start().await;
    let mut random = Random::seeded("damaged_frames_are_rejected_or_served_once");
    let head = frames::fields("POST", "/v1/chat/completions", &scene.key);
    let good = [
        frames::frame(SETTINGS, 0, 0, &frames::setting((4, 65_535))),
        frames::open(1, &head),
        frames::frame(DATA, 0, 1, b"{\"model\":"),
        frames::frame(DATA, END_STREAM, 1, b"\"m\"}"),
    ]
    .concat();
    let jobs = (0..HTTP2).map(|_| [PREFACE, &mutated(&good, &mut random)].concat());
    let gateway = scene.gateway.address();
    in_parallel(jobs.collect(), |bytes| async move {
        let Frames { mut reader, mut writer } = Frames::silent(gateway).await;
        let mut outcome = Outcome::default();
        // The gateway may close at any byte. A client that has sent no request may stay.
        let _ = writer.write_all(&bytes).await;
        let _ = timeout(CLIENT_TIMEOUT + PAUSE, reader.follow(1, &mut outcome)).await;
        assert!(outcome.status.is_none_or(|status| status < 500), "{bytes:02x?} {outcome:?}");
        let _ = writer.shutdown().await;
        let ended = timeout(SLACK, reader.into_inner().read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "not closed: {bytes:02x?}");
    })
    .await;
    let seen = scene.upstream.requests();
    assert!(seen.len() <= HTTP2 && !seen.is_empty(), "{} requests of {HTTP2}", seen.len());
    scene.assert_unharmed().await;
}

#[tokio::test]
async fn random_bytes_are_rejected() {
    let scene = Scene::start().await;
    let mut random = Random::seeded("random_bytes_are_rejected");
    let jobs = (0..500).map(|_| {
        let length = random.below(4000) as usize + 30;
        random.bytes(length)
    });
    let gateway = scene.gateway.address();
    in_parallel(jobs.collect(), |bytes| async move {
        let mut socket = TcpStream::connect(gateway).await.unwrap();
        let mut response = Vec::new();
        let ended = timeout(Duration::from_secs(20), async {
            let _ = socket.write_all(&bytes).await;
            let _ = socket.read_to_end(&mut response).await;
        });
        assert!(ended.await.is_ok(), "not closed: {bytes:02x?}");
        assert!(response.is_empty() || response.starts_with(b"HTTP/1.1 4"), "{bytes:02x?}");
    })
    .await;
    assert!(scene.upstream.requests().is_empty());
    scene.assert_unharmed().await;
}
