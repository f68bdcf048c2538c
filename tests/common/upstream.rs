use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tower::BoxError;

use super::eventually;

/// The body of a scripted response.
pub(crate) type StubBody = BoxBody<Bytes, BoxError>;

/// A scripted upstream. It stops on drop.
pub(crate) struct Upstream {
    address: SocketAddr,
    script: Arc<Script>,
    server: JoinHandle<()>,
}

/// One request as the upstream received it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

struct Script {
    response: Box<dyn Fn(Request<Bytes>) -> Response<StubBody> + Send + Sync>,
    gate: Semaphore,
    arrived: AtomicUsize,
    calls: Mutex<Vec<Call>>,
}

impl Upstream {
    /// More responses than a test holds.
    pub(crate) const ALL: usize = 1 << 20;

    /// Responds to every request with `response`, at once.
    pub(crate) async fn start(
        response: impl Fn(Request<Bytes>) -> Response<StubBody> + Send + Sync + 'static,
    ) -> Self {
        Self::with_gate(Semaphore::MAX_PERMITS, response).await
    }

    /// Holds every response until it is released.
    pub(crate) async fn holding(
        response: impl Fn(Request<Bytes>) -> Response<StubBody> + Send + Sync + 'static,
    ) -> Self {
        Self::with_gate(0, response).await
    }

    #[expect(clippy::disallowed_methods, reason = "one task for the server")]
    async fn with_gate(
        open: usize,
        response: impl Fn(Request<Bytes>) -> Response<StubBody> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let script = Arc::new(Script {
            response: Box::new(response),
            gate: Semaphore::new(open),
            arrived: AtomicUsize::new(0),
            calls: Mutex::default(),
        });
        Self {
            address: listener.local_addr().unwrap(),
            server: tokio::spawn(serve(listener, script.clone())),
            script,
        }
    }

    /// The value for the gateway's `UPSTREAM_BASE_URL`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have reached it.
    pub(crate) fn count(&self) -> usize {
        self.script.arrived.load(Ordering::SeqCst)
    }

    /// The requests whose body has arrived.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.script.calls.lock().unwrap().clone()
    }

    /// The latest request.
    pub(crate) fn last(&self) -> Call {
        self.calls().pop().expect("the upstream was called")
    }

    /// Releases this number of held responses.
    pub(crate) fn release(&self, responses: usize) {
        self.script.gate.add_permits(responses);
    }

    /// Waits until this number of requests has reached it.
    pub(crate) async fn reached_by(&self, requests: usize) {
        eventually("requests at the upstream", || async { self.count() >= requests }).await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, script: Arc<Script>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let script = script.clone();
        let service = service_fn(move |request| reply(script.clone(), request));
        let connection = Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(socket), service)
            .into_owned();
        connections.spawn(connection);
    }
}

async fn reply(
    script: Arc<Script>,
    request: Request<Incoming>,
) -> Result<Response<StubBody>, hyper::Error> {
    script.arrived.fetch_add(1, Ordering::SeqCst);
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    script.calls.lock().unwrap().push(Call {
        method: head.method.clone(),
        uri: head.uri.clone(),
        headers: head.headers.clone(),
        body: body.clone(),
    });
    if let Ok(permit) = script.gate.acquire().await {
        permit.forget();
    }
    Ok((script.response)(Request::from_parts(head, body)))
}

/// A body in one piece.
pub(crate) fn full(body: impl Into<Bytes>) -> StubBody {
    Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A 200 response of this JSON text, byte for byte.
pub(crate) fn json_response(body: impl Into<Bytes>) -> Response<StubBody> {
    Response::builder().header(CONTENT_TYPE, "application/json").body(full(body)).unwrap()
}

/// A believable chat response.
pub(crate) fn chat_json() -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "deepseek-chat",
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "hello"},
        }],
        "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
    })
}

/// A body that is fed piece by piece: it ends when the sender is dropped, and breaks off at an
/// error.
pub(crate) fn streaming() -> (mpsc::UnboundedSender<Result<Bytes, BoxError>>, StubBody) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, StreamedBody(Mutex::new(receiver)).boxed())
}

struct StreamedBody(Mutex<mpsc::UnboundedReceiver<Result<Bytes, BoxError>>>);

impl Body for StreamedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let receiver = self.0.get_mut().unwrap();
        receiver.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
