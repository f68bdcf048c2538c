use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    RequestBody, UsageRecorderLayer, WatchRequests,
    layer::Config,
    recorder::{Recorder, ResponseObserver},
};
use crate::{
    body::{ObservedBody, expected_length},
    store::{RequestOutcome, UsageSink},
};

/// Middleware that records one event for each request, at the end of its response.
///
/// See the [module](super) for its rules.
#[derive(Clone)]
pub struct UsageRecorder<S, W = ()> {
    pub(super) inner: S,
    pub(super) config: Arc<Config>,
    pub(super) _watch: W,
}

impl<S> UsageRecorder<S> {
    /// Creates the middleware around `inner`, which records events in `sink`.
    pub fn new(inner: S, sink: impl UsageSink) -> Self {
        UsageRecorderLayer::new(sink).layer(inner)
    }
}

impl<S, W> UsageRecorder<S, W> {
    inner_accessors!(S);
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for UsageRecorder<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let recorder = Recorder::start(self.config.clone(), &mut request);
        ResponseFuture { inner: self.inner.call(request), recorder: Some(recorder) }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for UsageRecorder<S, WatchRequests>
where
    S: Service<Request<RequestBody<ReqBody>>, Response = Response<ResBody>>,
    ReqBody: Body,
    ResBody: Body,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let mut recorder = Recorder::start(self.config.clone(), &mut request);
        let request = recorder.watch(request);
        ResponseFuture { inner: self.inner.call(request), recorder: Some(recorder) }
    }
}

impl<S: fmt::Debug, W> fmt::Debug for UsageRecorder<S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageRecorder").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// Response future of [`UsageRecorder`]. If it is dropped before it completes, the event says that
    /// the client left.
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        recorder: Option<Recorder>,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(recorder) = this.project().recorder.take() {
                recorder.finish(RequestOutcome::ClientGone);
            }
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    /// # Panics
    ///
    /// When polled again after completion.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let recorder = this.recorder.take().expect("`ResponseFuture` polled after completion");
        match result {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let expected = expected_length(recorder.method(), &head);
                let inner = ObservedBody::new(body, recorder.observe(&head), expected);
                Poll::Ready(Ok(Response::from_parts(head, ResponseBody { inner })))
            }
            Err(error) => {
                recorder.finish(RequestOutcome::Failed);
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

opaque_body! {
    /// Response body of [`UsageRecorder`]: the inner service's, at whose end the event is recorded.
    pub struct ResponseBody<B>(ObservedBody<B, ResponseObserver>);
}

impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self { inner: ObservedBody::default() }
    }
}
