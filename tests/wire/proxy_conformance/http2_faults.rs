//! What an upstream can do wrong over HTTP/2 only.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use h2::{
    Reason,
    server::{Connection, SendResponse},
};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tower::ServiceExt;
use tower_quota::error::UpstreamFault;

use super::{
    common::DEADLINE,
    gateway::{Proxy, proxy},
    message::in_time,
    tls,
};

/// What the upstream does with its first request. Every other one gets `ok`.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// No HTTP/2 at all.
    Garbage,
    Reset(Reason),
    GoAway(Reason),
    Close,
    /// The same after a head and a frame.
    ThenReset(Reason),
    ThenGoAway(Reason),
    ThenClose,
    /// Fewer bytes than were declared.
    Short,
    /// More than that.
    Long,
    /// The whole response, then a reset.
    WholeThenReset(Reason),
    /// The whole response, and a `GOAWAY`.
    LastResponse,
}

struct Upstream {
    url: String,
    requests: Arc<AtomicUsize>,
    server: AbortHandle,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Upstream {
    #[expect(clippy::disallowed_methods, reason = "one task for the server")]
    async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let mut fault = Some(fault);
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, fault.take(), count.clone()));
            }
        });
        Self { url, requests, server: server.abort_handle() }
    }
}

async fn serve(socket: TcpStream, mut fault: Option<Fault>, count: Arc<AtomicUsize>) {
    socket.set_nodelay(true).unwrap();
    let Ok(mut socket) = tls::acceptor().accept(socket).await else { return };
    if let Some(Fault::Garbage) = fault {
        count.fetch_add(1, Ordering::SeqCst);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let _ = socket.shutdown().await;
        return;
    }
    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
    while let Some(Ok((_, respond))) = connection.accept().await {
        count.fetch_add(1, Ordering::SeqCst);
        let Some(fault) = fault.take() else {
            send_head_and_data(respond, Some(2), b"ok", true);
            continue;
        };
        match fault {
            Fault::Garbage => unreachable!("handled above"),
            Fault::Reset(reason) => reset(respond, reason),
            Fault::GoAway(reason) => connection.abrupt_shutdown(reason),
            Fault::Close => return,
            Fault::ThenReset(reason) => {
                let mut stream = send_head_and_data(respond, None, b"begun", false);
                flush(&mut connection).await;
                stream.send_reset(reason);
            }
            Fault::ThenGoAway(reason) => {
                let _stream = send_head_and_data(respond, None, b"begun", false);
                flush(&mut connection).await;
                connection.abrupt_shutdown(reason);
            }
            Fault::ThenClose => {
                let _stream = send_head_and_data(respond, None, b"begun", false);
                flush(&mut connection).await;
                return;
            }
            Fault::Short => drop(send_head_and_data(respond, Some(10), b"short", true)),
            Fault::Long => drop(send_head_and_data(respond, Some(2), b"longer", true)),
            Fault::WholeThenReset(reason) => {
                let mut stream = send_head_and_data(respond, Some(2), b"ok", true);
                flush(&mut connection).await;
                stream.send_reset(reason);
            }
            Fault::LastResponse => {
                drop(send_head_and_data(respond, Some(2), b"ok", true));
                connection.graceful_shutdown();
            }
        }
    }
}

/// Sends what is queued.
async fn flush(connection: &mut Connection<impl AsyncRead + AsyncWrite + Unpin, Bytes>) {
    poll_fn(|cx| {
        let _ = connection.poll_closed(cx);
        Poll::Ready(())
    })
    .await;
}

fn reset(mut respond: SendResponse<Bytes>, reason: Reason) {
    respond.send_reset(reason);
}

fn send_head_and_data(
    mut respond: SendResponse<Bytes>,
    length: Option<usize>,
    body: &'static [u8],
    is_whole: bool,
) -> h2::SendStream<Bytes> {
    let mut head = Response::builder().status(200);
    if let Some(length) = length {
        head = head.header("content-length", length);
    }
    let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
    stream.send_data(Bytes::from_static(body), is_whole).unwrap();
    stream
}

/// How a request ended.
#[derive(Debug, PartialEq)]
enum End {
    Whole(String),
    Broken,
    Fault(UpstreamFault),
}

async fn post(proxy: &Proxy<Full<Bytes>>) -> End {
    let request = Request::post("/v1/x").header("host", "gateway").body("{}".into()).unwrap();
    let sent = proxy.clone().oneshot(request);
    let response = in_time(DEADLINE, sent).await.unwrap();
    if let Some(fault) = response.extensions().get() {
        return End::Fault(*fault);
    }
    match in_time(DEADLINE, response.into_body().collect()).await {
        Ok(body) => End::Whole(String::from_utf8_lossy(&body.to_bytes()).into_owned()),
        Err(_) => End::Broken,
    }
}

/// What such a request ends with; the next one must be served, and none be sent twice.
async fn end_after(fault: Fault) -> End {
    let upstream = Upstream::start(fault).await;
    let proxy = proxy(&upstream.url);
    let end = post(&proxy).await;
    assert_eq!(upstream.requests.load(Ordering::SeqCst), 1, "{fault:?}");
    assert_eq!(post(&proxy).await, End::Whole("ok".to_owned()), "after {fault:?}");
    assert_eq!(upstream.requests.load(Ordering::SeqCst), 2, "{fault:?}");
    end
}

#[tokio::test]
async fn a_missing_response_is_a_protocol_error() {
    for fault in [
        Fault::Garbage,
        Fault::Reset(Reason::INTERNAL_ERROR),
        Fault::Reset(Reason::CANCEL),
        Fault::Reset(Reason::NO_ERROR),
        Fault::Reset(Reason::ENHANCE_YOUR_CALM),
        Fault::Reset(Reason::HTTP_1_1_REQUIRED),
        Fault::GoAway(Reason::PROTOCOL_ERROR),
        Fault::GoAway(Reason::INTERNAL_ERROR),
        Fault::Close,
    ] {
        assert_eq!(end_after(fault).await, End::Fault(UpstreamFault::Protocol), "{fault:?}");
    }
}

#[tokio::test]
async fn a_rejected_stream_was_never_served() {
    let end = end_after(Fault::Reset(Reason::REFUSED_STREAM)).await;
    assert_eq!(end, End::Fault(UpstreamFault::Unreached));
}

#[tokio::test]
async fn a_response_that_ends_early_breaks_off() {
    for fault in [
        Fault::ThenReset(Reason::INTERNAL_ERROR),
        Fault::ThenReset(Reason::CANCEL),
        Fault::ThenReset(Reason::NO_ERROR),
        Fault::ThenGoAway(Reason::INTERNAL_ERROR),
        Fault::ThenClose,
        Fault::Short,
        Fault::Long,
    ] {
        assert_eq!(end_after(fault).await, End::Broken, "{fault:?}");
    }
}

#[tokio::test]
async fn a_complete_response_stays_complete_whatever_follows() {
    for fault in [Fault::WholeThenReset(Reason::NO_ERROR), Fault::LastResponse] {
        assert_eq!(end_after(fault).await, End::Whole("ok".to_owned()), "{fault:?}");
    }
}
