//! Upstreams of either protocol that follow a script and report the requests that they receive.

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{Request, Response, StatusCode};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{JoinHandle, JoinSet},
};

use super::{
    common::DEADLINE,
    http1::{self, Socket},
    http2,
    message::{Message, Protocol, in_time},
    tls,
};

/// A scripted upstream. It stops on drop.
pub(crate) struct Upstream {
    pub(crate) url: String,
    events: UnboundedReceiver<Event>,
    server: JoinHandle<()>,
}

/// What an upstream does with each request.
#[derive(Clone)]
enum Script {
    /// Reads the request to its end and sends this response.
    Respond(Message),
    /// Reads the head, begins this response if there is one, and waits for the gateway to leave.
    Hold(Option<Message>),
    /// Sends no response; an HTTP/2 connection allows this number of streams.
    HoldAtMost(u32),
}

impl Script {
    fn http2(&self) -> h2::server::Builder {
        let mut builder = h2::server::Builder::new();
        if let Self::HoldAtMost(streams) = self {
            builder.max_concurrent_streams(*streams);
        }
        builder
    }

    /// The response that it begins if it holds requests.
    fn beginning(&self) -> Option<&Message> {
        match self {
            Self::Hold(beginning) => beginning.as_ref(),
            _ => None,
        }
    }
}

#[derive(Debug)]
enum Event {
    Request(Message),
    /// The gateway has given the request up.
    Gone,
}

impl Upstream {
    /// Starts an upstream that sends this response to every request.
    pub(crate) async fn responding(protocol: Protocol, response: Message) -> Self {
        Self::start(protocol, Script::Respond(response)).await
    }

    /// Starts an upstream that sends no response, and allows this number of streams on a connection.
    pub(crate) async fn holding_at_most(streams: u32) -> Self {
        Self::start(Protocol::Http2, Script::HoldAtMost(streams)).await
    }

    /// Starts an upstream that sends no response, or only its beginning.
    pub(crate) async fn holding(protocol: Protocol, beginning: Option<Message>) -> Self {
        Self::start(protocol, Script::Hold(beginning)).await
    }

    #[expect(clippy::disallowed_methods, reason = "one task for the server")]
    async fn start(protocol: Protocol, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = match protocol {
            Protocol::Http1 => "http",
            Protocol::Http2 => "https",
        };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (sender, events) = unbounded_channel();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let script = Arc::new(script);
            while let Ok((socket, _)) = listener.accept().await {
                let (script, sender) = (script.clone(), sender.clone());
                connections.spawn(async move {
                    match protocol {
                        Protocol::Http1 => serve_http1(socket, &script, &sender).await,
                        Protocol::Http2 => serve_http2(socket, script, sender).await,
                    }
                });
            }
        });
        Self { url, events, server }
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    /// The next request that has come.
    pub(crate) async fn seen(&mut self) -> Message {
        match in_time(DEADLINE, self.events.recv()).await {
            Some(Event::Request(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the gateway has given up the request that is held.
    pub(crate) async fn left(&mut self) {
        assert!(matches!(self.events.recv().await, Some(Event::Gone)));
    }

    /// Whether all requests that have come were taken by [`seen`](Self::seen).
    #[track_caller]
    pub(crate) fn saw_no_more(&mut self) {
        let event = self.events.try_recv();
        assert!(event.is_err(), "{event:?}");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve_http1(socket: TcpStream, script: &Script, sender: &UnboundedSender<Event>) {
    let mut socket = Socket::new(socket);
    match script {
        Script::Respond(response) => {
            while let Some(request) = socket.message(true).await {
                let mut response = response.clone().with_length();
                if request.is_head_request() {
                    response.body.clear();
                }
                let _ = sender.send(Event::Request(request));
                socket.send(http1::encoded(&response)).await;
            }
        }
        Script::Hold(_) | Script::HoldAtMost(_) => {
            let Some(request) = socket.head().await else { return };
            let _ = sender.send(Event::Request(request));
            if let Some(beginning) = script.beginning() {
                let head = beginning.clone().header("content-length", "1000");
                socket.send(http1::encoded(&head)).await;
            }
            socket.closed().await;
            let _ = sender.send(Event::Gone);
        }
    }
}

async fn serve_http2(socket: TcpStream, script: Arc<Script>, sender: UnboundedSender<Event>) {
    socket.set_nodelay(true).unwrap();
    let Ok(socket) = tls::acceptor().accept(socket).await else { return };
    let Ok(mut connection) = script.http2().handshake(socket).await else { return };
    let mut streams = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (script, sender) = (script.clone(), sender.clone());
        streams.spawn(async move { serve_stream(request, respond, &script, &sender).await });
    }
}

async fn serve_stream(
    mut request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    script: &Script,
    sender: &UnboundedSender<Event>,
) {
    let mut seen = http2::request(&request);
    match script {
        Script::Respond(response) => {
            if http2::read(request.body_mut(), &mut seen).await.is_none() {
                return;
            }
            let head = response.clone().with_length();
            let is_over = seen.is_head_request() || response.is_bare();
            let _ = sender.send(Event::Request(seen));
            for status in &response.interim {
                let mut interim = Response::new(());
                *interim.status_mut() = StatusCode::from_u16(*status).unwrap();
                respond.send_informational(interim).unwrap();
            }
            let head = http2::response_head(&head);
            let mut stream = respond.send_response(head, is_over).unwrap();
            if !is_over {
                http2::finish(&mut stream, response);
            }
        }
        Script::Hold(_) | Script::HoldAtMost(_) => {
            let _ = sender.send(Event::Request(seen));
            let mut stream = None;
            if let Some(beginning) = script.beginning() {
                let head = http2::response_head(beginning);
                let begun = stream.insert(respond.send_response(head, false).unwrap());
                begun.send_data(beginning.body.clone().into(), false).unwrap();
            }
            match &mut stream {
                Some(stream) => drop(poll_fn(|cx| stream.poll_reset(cx)).await),
                None => drop(poll_fn(|cx| respond.poll_reset(cx)).await),
            }
            let _ = sender.send(Event::Gone);
        }
    }
}
