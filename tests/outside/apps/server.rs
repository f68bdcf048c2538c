use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tower::service_fn;
use tower_quota::server::{self, Limits, PeerAddr, RequestBody, Shutdown};

/// Longer than what sockets buffer.
const LONG: usize = 64 << 20;

async fn handle(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, Infallible> {
    let peer = request.extensions().get::<PeerAddr>().map(|peer| peer.ip().to_string());
    let body = match (request.method(), request.uri().path()) {
        (&Method::POST, _) => match request.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => error.to_string().into(),
        },
        (_, "/long") => vec![b'x'; LONG].into(),
        _ => peer.unwrap_or_default().into(),
    };
    Ok(Response::new(body.into()))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let limits = Limits::new()
        .connections(100)
        .client_timeout(Duration::from_secs(2))
        .idle_timeout(Duration::from_secs(3))
        .proxies(|peer| peer.is_loopback());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let shutdown = Shutdown::new();
    let server = server::serve(listener, service_fn(handle), limits)
        .shutdown(shutdown.clone())
        .into_future();
    // A line on standard input takes each step.
    let steps = async {
        let mut stdin = tokio::io::stdin();
        for step in [Shutdown::drain, Shutdown::close, Shutdown::abort] {
            let _ = stdin.read_u8().await;
            step(&shutdown);
        }
    };
    tokio::join!(server, steps);
    println!("ended");
    Ok(())
}
