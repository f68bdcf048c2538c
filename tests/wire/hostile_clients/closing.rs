use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    common::GatewayCommand,
    frames::{Frames, GOAWAY},
    scene::{CLIENT_TIMEOUT, SLACK, Scene},
};

/// An idle connection is closed, and others may have its place.
#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let scene = Scene::start().await;
    let mut connection = Frames::connect(scene.gateway.address(), &[]).await;
    let mut kinds = Vec::new();
    let closed = async {
        while let Ok(frame) = connection.reader.next().await {
            kinds.push(frame.kind);
        }
    };
    timeout(2 * CLIENT_TIMEOUT + SLACK, closed).await.expect("it is closed");
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
}

/// The rejection of a large body reaches a client that first sends all of it.
#[tokio::test]
async fn a_rejection_reaches_a_client_that_sends_first_and_reads_then() {
    let scene = Scene::start().await;
    let good = format!("Bearer {}", scene.key);
    for (authorization, length, status) in [("Bearer no", 5 << 20, "401"), (&good, 33 << 20, "413")]
    {
        for framing in
            [format!("Content-Length: {length}"), "Transfer-Encoding: chunked".to_owned()]
        {
            let mut socket = TcpStream::connect(scene.gateway.address()).await.unwrap();
            let head = format!(
                "POST /v1/x HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n{framing}\r\n\r\n"
            );
            socket.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![b'x'; 64 << 10];
            for _ in 0..length / piece.len() {
                if framing.starts_with("Transfer") {
                    socket.write_all(b"10000\r\n").await.unwrap();
                }
                socket.write_all(&piece).await.unwrap();
                if framing.starts_with("Transfer") {
                    socket.write_all(b"\r\n").await.unwrap();
                }
            }
            let mut response = Vec::new();
            socket.read_to_end(&mut response).await.unwrap();
            let response = String::from_utf8_lossy(&response);
            assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{framing}: {response}");
        }
    }
}

/// In HTTP/1.0 a response ends with its connection, so one that broke off must not end like that.
#[tokio::test]
async fn a_stream_that_breaks_off_is_reset_for_an_http_1_0_client() {
    let upstream = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let base_url = format!("http://{}/v1", upstream.local_addr().unwrap());
    let gateway = GatewayCommand::new().env("UPSTREAM_BASE_URL", base_url).start();
    let key = gateway.create_key(serde_json::json!({})).await;
    for whole in [true, false] {
        let mut client = TcpStream::connect(gateway.address()).await.unwrap();
        let head = format!("GET /v1/x HTTP/1.0\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let (mut served, _) = upstream.accept().await.unwrap();
        assert_ne!(served.read(&mut [0; 4096]).await.unwrap(), 0);
        let begin = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        served.write_all(begin.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"hello") {
            assert_ne!(client.read_buf(&mut read).await.unwrap(), 0);
        }
        let end: &[u8] = if whole { b"0\r\n\r\n" } else { b"5\r\nhal" };
        served.write_all(end).await.unwrap();
        drop(served);
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(8), client.read_to_end(&mut rest)).await.unwrap();
        match whole {
            true => assert!(ended.is_ok() && rest.is_empty(), "{ended:?}"),
            false => assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset),
        }
    }
}

/// As many headers as are allowed are taken, although the gateway adds one of its own.
#[tokio::test]
async fn a_hundred_headers_are_accepted() {
    let scene = Scene::start().await;
    let authorization = format!("Bearer {}", scene.key);
    let names: Vec<String> = (0..98).map(|number| format!("x-{number}")).collect();
    let mut head = format!("GET /v1/x HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n");
    names.iter().for_each(|name| head.push_str(&format!("{name}: 1\r\n")));
    head.push_str("\r\n");
    let mut socket = TcpStream::connect(scene.gateway.address()).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    socket.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
}
