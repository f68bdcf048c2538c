//! HTTP/2 by the `h2` crate: what is sent and seen are frames.

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, HeaderName, Request, Response};
use tokio::net::TcpStream;

use super::message::{Lines, Message};

/// A client's connection. It ends on drop.
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    #[expect(clippy::disallowed_methods, reason = "one task for the connection")]
    pub(crate) async fn open(server: &str) -> Self {
        let socket = TcpStream::connect(server.strip_prefix("http://").unwrap()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (requests, connection) = h2::client::handshake(socket).await.unwrap();
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { requests, driver }
    }

    /// Sends a request of a form that no [`Message`] has.
    pub(crate) async fn send_head(&mut self, head: Request<()>) -> ResponseFuture {
        self.requests = self.requests.clone().ready().await.unwrap();
        self.requests.send_request(head, true).unwrap().0
    }

    /// Sends a request's head, and its body if it is to be whole.
    pub(crate) async fn send(
        &mut self,
        request: &Message,
        is_whole: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let (method, target) = request.start.split_once(' ').unwrap();
        let authority = match request.one(":authority") {
            "" => "gateway.example",
            authority => authority,
        };
        let mut head = Request::builder().method(method);
        head = head.uri(format!("http://{authority}{target}"));
        for (name, value) in request.headers.iter().filter(|(name, _)| !name.starts_with(':')) {
            head = head.header(name, value);
        }
        self.requests = self.requests.clone().ready().await.unwrap();
        let is_over = is_whole && request.body.is_empty() && request.trailers.is_empty();
        let head = head.body(()).unwrap();
        let (response, mut stream) = self.requests.send_request(head, is_over).unwrap();
        if is_whole && !is_over {
            finish(&mut stream, request);
        }
        (response, stream)
    }
}

/// Sends the body and trailers of a message.
pub(crate) fn finish(stream: &mut SendStream<Bytes>, message: &Message) {
    let has_trailers = !message.trailers.is_empty();
    if !message.body.is_empty() || !has_trailers {
        stream.send_data(message.body.clone().into(), !has_trailers).unwrap();
    }
    if has_trailers {
        let line = |(name, value): &(String, String)| {
            (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
        };
        stream.send_trailers(message.trailers.iter().map(line).collect()).unwrap();
    }
}

/// The lines of a head or of trailers.
fn lines(headers: &HeaderMap) -> Lines {
    let line = |(name, value): (&HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    headers.iter().map(line).collect()
}

/// A request's head as the upstream saw it.
pub(crate) fn request(request: &Request<RecvStream>) -> Message {
    let uri = request.uri();
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let mut message = Message::new(&format!("{} {target}", request.method()));
    if let Some(authority) = uri.authority() {
        message = message.header(":authority", authority.as_str());
    }
    message.headers.extend(lines(request.headers()));
    message
}

/// Reads the rest of a message; `None` if it breaks off.
pub(crate) async fn read(stream: &mut RecvStream, message: &mut Message) -> Option<()> {
    while let Some(piece) = stream.data().await {
        let piece = piece.ok()?;
        stream.flow_control().release_capacity(piece.len()).ok()?;
        message.body.extend(&piece);
    }
    if let Some(trailers) = stream.trailers().await.ok()? {
        message.trailers = lines(&trailers);
    }
    Some(())
}

/// The head of a received response.
pub(crate) fn received_head(response: &Response<RecvStream>) -> Message {
    let mut message = Message::new(response.status().as_str());
    message.headers = lines(response.headers());
    message
}

/// The head that an upstream sends.
pub(crate) fn response_head(message: &Message) -> Response<()> {
    let mut head = Response::builder().status(message.start.as_str());
    for (name, value) in &message.headers {
        head = head.header(name, value);
    }
    head.body(()).unwrap()
}

pub(crate) async fn exchange(server: &str, request: &Message) -> Message {
    let mut connection = Connection::open(server).await;
    let (response, _stream) = connection.send(request, true).await;
    let mut response = response.await.expect("a response");
    let mut message = received_head(&response);
    read(response.body_mut(), &mut message).await.expect("a whole response");
    message
}
