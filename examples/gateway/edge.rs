//! The layers around all routes: request ids, client addresses, the request log, CORS, panics.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header, response::Parts};
use http_body::{Body, Frame, SizeHint};
use ipnet::IpNet;
use pin_project_lite::pin_project;
use tower::{Service, ServiceBuilder};
use tower_quota::{
    body::{BodyEnd, BodyObserver, ObservedBody, expected_length},
    openai::AnthropicErrorsLayer,
    request::RequestContext,
    server::RequestBody,
};
use uuid::Uuid;

use crate::{
    catch_panic::CatchPanic,
    client_addr::set_client_addr,
    cors::ApiCorsLayer,
    logging,
    request_log::{Observers, RequestFacts},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Headers that carry a key or token.
static CREDENTIALS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    HeaderName::from_static("x-trial-key"),
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-admin-token"),
];
/// Other headers that `Debug` must not show.
static SECRETS: [HeaderName; 2] = [header::COOKIE, header::PROXY_AUTHORIZATION];

/// Options of the outer layers.
pub(crate) struct EdgeOptions {
    pub(crate) cors: ApiCorsLayer,
    /// Networks whose `X-Forwarded-For` is trusted.
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) observers: Arc<Observers>,
}

/// Wraps `service` in the outer layers. `on_panic` makes the response when it panics.
pub(crate) fn edge<S, B>(
    service: S,
    options: EdgeOptions,
    on_panic: impl Fn() -> Response<B> + Clone + Send + 'static,
) -> impl Service<
    Request<RequestBody>,
    Response = Response<impl Body<Data = Bytes, Error = B::Error> + Send + 'static>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ 'static
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible, Future: Send>,
    S: Clone + Send + 'static,
    B: Body<Data = Bytes> + Default + Send + 'static,
    B::Error: std::fmt::Display + Send,
{
    let EdgeOptions { cors, trusted_proxies, observers } = options;
    let trusted_proxies: Arc<[IpNet]> = trusted_proxies.into();
    let inner = ServiceBuilder::new()
        .layer(cors)
        .layer(AnthropicErrorsLayer::new())
        .service(CatchPanic::new(service, on_panic));
    Edge { inner, trusted_proxies, observers }
}

/// Reads each request's head once for what all of its lines in the log need, and completes the response's.
#[derive(Clone)]
struct Edge<S> {
    inner: S,
    trusted_proxies: Arc<[IpNet]>,
    observers: Arc<Observers>,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Edge<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Response = Response<LoggedBody<ResBody>>;
    type Error = S::Error;
    type Future = EdgeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let credential = mark_secrets(request.headers_mut());
        let id = identify(request.headers_mut());
        let client = set_client_addr(&mut request, &self.trusted_proxies);
        let facts = RequestFacts::new(&request, id, credential, client, self.observers.clone());
        let facts = Arc::new(facts);
        let listener = facts.clone();
        let context = RequestContext::of(request.extensions_mut());
        context.on_event(move |event| listener.record_event(event));
        let _entered = logging::enter(facts.id());
        EdgeFuture { inner: self.inner.call(request), logged: Some((facts, context)) }
    }
}

pin_project! {
    /// Response future of [`Edge`].
    struct EdgeFuture<F> {
        #[pin]
        inner: F,
        logged: Option<(Arc<RequestFacts>, RequestContext)>,
    }

    impl<F> PinnedDrop for EdgeFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some((facts, _)) = this.project().logged.take() {
                facts.record_end(BodyEnd::Abandoned, 0);
            }
        }
    }
}

impl<F, B, E> Future for EdgeFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<LoggedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let entered = this.logged.as_ref().map(|(facts, _)| logging::enter(facts.id()));
        let response = ready!(this.inner.poll(cx))?;
        drop(entered);
        let logged = this.logged.take();
        let (facts, context) = logged.expect("`EdgeFuture` polled after completion");
        let (mut head, body) = response.into_parts();
        complete(&mut head, facts.id());
        facts.record_head(&head, &context);
        let expected = expected_length(facts.method(), &head);
        let id = facts.id().clone();
        let inner = ObservedBody::new(body, LogObserver { facts, bytes: 0 }, expected);
        Poll::Ready(Ok(Response::from_parts(head, LoggedBody { inner, id })))
    }
}

pin_project! {
    /// Response body of [`Edge`].
    struct LoggedBody<B> {
        #[pin]
        inner: ObservedBody<B, LogObserver>,
        id: HeaderValue,
    }
}

impl<B: Body> Body for LoggedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let _entered = logging::enter(this.id);
        this.inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Observes a response body for the log.
struct LogObserver {
    facts: Arc<RequestFacts>,
    bytes: u64,
}

impl BodyObserver for LogObserver {
    fn data(&mut self, data: &impl Buf) {
        self.bytes += data.remaining() as u64;
    }

    fn end(self, end: BodyEnd) {
        self.facts.record_end(end, self.bytes);
    }
}

/// Marks secrets as sensitive, and returns the first of [`CREDENTIALS`] that the request has.
fn mark_secrets(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let mut first: Option<(usize, &HeaderValue)> = None;
    for (name, value) in headers.iter_mut() {
        let rank = CREDENTIALS.iter().position(|credential| credential == name);
        if rank.is_none() && !SECRETS.contains(name) {
            continue;
        }
        value.set_sensitive(true);
        if let Some(rank) = rank
            && first.is_none_or(|(other, _)| rank < other)
        {
            first = Some((rank, value));
        }
    }
    first.map(|(_, credential)| credential.clone())
}

/// Returns the client's request id if it is one value of 1 to 128 visible ASCII characters and not a key, as ids are
/// logged and forwarded. Otherwise the request gets an id.
fn identify(headers: &mut HeaderMap) -> HeaderValue {
    let mut ids = headers.get_all(REQUEST_ID).iter();
    if let (Some(id), None) = (ids.next(), ids.next())
        && (1..=128).contains(&id.len())
        && id.as_bytes().iter().all(u8::is_ascii_graphic)
        && !["trial-", "sk-"].iter().any(|start| id.as_bytes().starts_with(start.as_bytes()))
        && !is_credential(headers, id)
    {
        // A copy, as it is kept for longer than the buffer of which the header is a part.
        return HeaderValue::from_bytes(id.as_bytes()).unwrap_or_else(|_| id.clone());
    }
    // Ordered by time, so that the store's index of ids grows at its end.
    let mut buffer = Uuid::encode_buffer();
    let id = HeaderValue::from_str(Uuid::now_v7().hyphenated().encode_lower(&mut buffer));
    let id = id.expect("a UUID is visible ASCII");
    headers.insert(REQUEST_ID, id.clone());
    id
}

/// Returns whether `text` is also a credential of the request.
fn is_credential(headers: &HeaderMap, text: &HeaderValue) -> bool {
    CREDENTIALS.iter().chain(&SECRETS).flat_map(|name| headers.get_all(name)).any(|value| {
        let words = value.as_bytes().split(|byte| *byte == b' ');
        words.into_iter().any(|word| word == text.as_bytes())
    })
}

/// Adds the headers that every response has.
fn complete(head: &mut Parts, id: &HeaderValue) {
    let headers = &mut head.headers;
    let content_type = headers.get(header::CONTENT_TYPE);
    let media_type = content_type.and_then(|value| value.to_str().ok()?.split(';').next());
    if media_type.is_some_and(|media| media.trim().eq_ignore_ascii_case("text/event-stream")) {
        // nginx does not buffer such a response.
        headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
    // Browsers must trust the content type: the upstream's responses share an origin with `/admin`.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(REQUEST_ID).or_insert_with(|| id.clone());
}
