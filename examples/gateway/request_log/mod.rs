//! One line for each request, at its true end.

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
    usage::OnEvent,
};

use line::Line;
pub(crate) use line::logged_path;

/// Logs every request that passes.
///
/// The line is written when the last one lets go of it who may have something to tell: the answer's
/// body, or, where a client leaves, the usage recorder inside of that.
#[derive(Clone)]
pub(crate) struct RequestLog<S> {
    inner: S,
    observers: Observers,
}

/// What else keeps something of every request, for operators.
#[derive(Clone)]
pub(crate) struct Observers {
    /// Those that were rejected and whose key is not known.
    pub(crate) rejections: RejectionLog,
    /// From how many addresses each key is used. If nobody counts, no address is kept or logged.
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
    type Response = Response<ObservedBody<ResBody, LineObserver>>;
    type Error = S::Error;
    type Future = LoggedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let line = Arc::new(Line::begin(&request, self.observers.clone()));
        let listener = line.clone();
        request.extensions_mut().insert(OnEvent::new(move |event| listener.note_event(event)));
        LoggedFuture { inner: self.inner.call(request), line: Some(line) }
    }
}

pin_project! {
    /// Response future of [`RequestLog`].
    pub(crate) struct LoggedFuture<F> {
        #[pin]
        inner: F,
        line: Option<Arc<Line>>,
    }

    impl<F> PinnedDrop for LoggedFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(line) = this.project().line.take() {
                line.note_end(BodyEnd::Abandoned, 0);
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
    type Output = Result<Response<ObservedBody<B, LineObserver>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let line = this.line.take().expect("`LoggedFuture` polled after it was ready");
        let (head, body) = response.into_parts();
        line.note_head(&head);
        let expected = expected_length(line.method(), &head);
        let observer = LineObserver { line, bytes: 0 };
        Poll::Ready(Ok(Response::from_parts(head, ObservedBody::new(body, observer, expected))))
    }
}

/// Watches an answer's body for its line.
pub(crate) struct LineObserver {
    line: Arc<Line>,
    bytes: u64,
}

impl<D: Buf> BodyObserver<D> for LineObserver {
    fn data(&mut self, data: &D) {
        self.bytes += data.remaining() as u64;
    }

    fn end(self, end: BodyEnd) {
        self.line.note_end(end, self.bytes);
    }
}
