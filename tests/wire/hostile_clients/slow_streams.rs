use std::{net::SocketAddr, time::Duration};

use super::{
    frames::{
        self, CONTINUATION, DATA, END_HEADERS, Frames, HEADERS, INITIAL_WINDOW, WINDOW_UPDATE,
    },
    scene::{CLIENT_TIMEOUT, HEAD_LIMIT, SLACK},
    slow::trickle,
    upstream::LONG,
};

/// Sends `begin`, then `pieces` slowly, until the gateway has ended the first stream; what came of
/// it.
async fn until_ended(
    mut connection: Frames,
    begin: &[u8],
    pieces: &[&[u8]],
    limit: Duration,
) -> frames::Outcome {
    connection.send(begin).await.unwrap();
    let Frames { mut reader, mut writer } = connection;
    let slowly = async {
        trickle(&mut writer, pieces).await;
        // The gateway has gone; the reader notices the same.
        std::future::pending().await
    };
    tokio::select! {
        outcome = reader.outcome(1, limit + SLACK) => outcome,
        never = slowly => never,
    }
}

pub(crate) async fn head(gateway: SocketAddr, key: &str) {
    let connection = Frames::connect(gateway, &[]).await;
    let mut fields = frames::fields("GET", "/v1/slow/head", key);
    fields.push(("a".into(), vec![b'b'; 10_000]));
    let head = frames::request(1, &fields);
    let outcome = until_ended(connection, &head[..200], &[b"b"], HEAD_LIMIT).await;
    assert!(outcome.cut && outcome.status.is_none(), "a slow head: {outcome:?}");
}

pub(crate) async fn continuation(gateway: SocketAddr, key: &str) {
    let connection = Frames::connect(gateway, &[]).await;
    let mut fields = frames::fields("GET", "/v1/slow/head", key);
    fields.push(("a".into(), vec![b'b'; 10_000]));
    let block = frames::block(&fields);
    let begin = frames::frame(HEADERS, 0, 1, &block[..200]);
    let piece = frames::frame(CONTINUATION, 0, 1, b"b");
    let outcome = until_ended(connection, &begin, &[&piece], HEAD_LIMIT).await;
    assert!(outcome.cut && outcome.status.is_none(), "a slow head in pieces: {outcome:?}");
}

pub(crate) async fn body(gateway: SocketAddr, key: &str) {
    let connection = Frames::connect(gateway, &[]).await;
    let fields = frames::fields("POST", "/v1/slow/body", key);
    let head = frames::frame(HEADERS, END_HEADERS, 1, &frames::block(&fields));
    let piece = frames::frame(DATA, 0, 1, b"x");
    let outcome = until_ended(connection, &head, &[&piece], CLIENT_TIMEOUT).await;
    let is_rejected = outcome.status.is_some_and(|status| (400..500).contains(&status));
    assert!(is_rejected || outcome.cut, "a slow body: {outcome:?}");
}

/// Opens the window of a stream by a byte now and then, or never.
pub(crate) async fn reader(gateway: SocketAddr, key: &str, pause: Option<Duration>) {
    let window = u32::from(pause.is_some());
    let mut connection = Frames::connect(gateway, &[(INITIAL_WINDOW, window)]).await;
    let request = frames::request(1, &frames::fields("GET", "/v1/slow/long", key));
    let more = frames::frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes());
    let outcome = if pause.is_some() {
        until_ended(connection, &request, &[&more], CLIENT_TIMEOUT).await
    } else {
        connection.send(&request).await.unwrap();
        connection.reader.outcome(1, CLIENT_TIMEOUT + SLACK).await
    };
    assert!(outcome.cut && !outcome.ended, "{pause:?}: {outcome:?}");
    assert!(outcome.body.len() < LONG, "{pause:?}");
}
