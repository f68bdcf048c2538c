//! Logs one line per request when the request has ended.

mod line;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::Service;
use tower_quota::{
    admin::{ClientAddrs, RejectionLog},
    body::{BodyEnd, BodyObserver, ObservedBody, expected_length},
    request::RequestContext,
};

use line::LogLine;

/// Logs every request.
///
/// The line is shared and written when it is dropped: by the response body, or, if the client has gone, by
/// the usage recorder inside of it, which may still have something to record.
#[derive(Clone)]
pub(crate) struct RequestLog<S> {
    inner: S,
    observers: Observers,
}

/// What else records requests, for the admin API.
#[derive(Clone)]
pub(crate) struct Observers {
    /// Records rejected requests without a known key.
    pub(crate) rejections: RejectionLog,
    /// Counts the addresses from which each key is used. If `None`, no address is recorded or logged.
    pub(crate) client_addrs: Option<ClientAddrs>,
}

impl<S> RequestLog<S> {
    pub(crate) fn new(inner: S, observers: Observers) -> Self {
        Self { inner, observers }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RequestLog<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
    ResBody::Data: Buf,
{
    type Response = Response<ObservedBody<ResBody, LogObserver>>;
    type Error = S::Error;
    type Future = LoggedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let context = RequestContext::of(request.extensions_mut());
        let line = Arc::new(LogLine::new(&request, &context, self.observers.clone()));
        let listener = line.clone();
        context.on_event(move |event| listener.record_event(event));
        LoggedFuture { inner: self.inner.call(request), logged: Some((line, context)) }
    }
}

pin_project! {
    /// Response future of [`RequestLog`].
    pub(crate) struct LoggedFuture<F> {
        #[pin]
        inner: F,
        logged: Option<(Arc<LogLine>, RequestContext)>,
    }

    impl<F> PinnedDrop for LoggedFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some((line, _)) = this.project().logged.take() {
                line.record_end(BodyEnd::Abandoned, 0);
            }
        }
    }
}

impl<F, B, E> Future for LoggedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
    B::Data: Buf,
{
    type Output = Result<Response<ObservedBody<B, LogObserver>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let logged = this.logged.take();
        let (line, context) = logged.expect("`LoggedFuture` polled after completion");
        let (head, body) = response.into_parts();
        line.record_head(&head, &context);
        let expected = expected_length(line.method(), &head);
        let observer = LogObserver { line, bytes: 0 };
        Poll::Ready(Ok(Response::from_parts(head, ObservedBody::new(body, observer, expected))))
    }
}

/// Observes a response body for the log line.
pub(crate) struct LogObserver {
    line: Arc<LogLine>,
    bytes: u64,
}

impl BodyObserver for LogObserver {
    fn data(&mut self, data: &impl Buf) {
        self.bytes += data.remaining() as u64;
    }

    fn end(self, end: BodyEnd) {
        self.line.record_end(end, self.bytes);
    }
}
