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
use tower_service::Service;

use super::{
    RequestBody, RequestOutcome, UsageRecorderLayer, UsageSink,
    recorder::{Recorder, ResponseObserver},
};
use crate::body::{ObservedBody, delegate_body, expected_length};

/// Middleware that records one event for each request, at the end of its response.
///
/// See the [module](super) for its rules.
pub struct UsageRecorder<S, U> {
    pub(super) inner: S,
    pub(super) layer: Arc<UsageRecorderLayer<U>>,
}

impl<S, U> UsageRecorder<S, U> {
    /// Creates the middleware around `inner`, which records events in `sink`.
    pub fn new(inner: S, sink: U) -> Self {
        Self { inner, layer: Arc::new(UsageRecorderLayer::new(sink)) }
    }

    /// Returns a reference to the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, U, ReqBody, ResBody> Service<Request<ReqBody>> for UsageRecorder<S, U>
where
    S: Service<Request<RequestBody<ReqBody>>, Response = Response<ResBody>>,
    U: UsageSink,
    ReqBody: Body,
    ResBody: Body,
{
    type Response = Response<ResponseBody<ResBody, U>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, U>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (recorder, request) = Recorder::start(self.layer.clone(), request);
        ResponseFuture { inner: self.inner.call(request), recorder: Some(recorder) }
    }
}

impl<S: Clone, U> Clone for UsageRecorder<S, U> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, U> fmt::Debug for UsageRecorder<S, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageRecorder").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// Response future of [`UsageRecorder`]. If it is dropped before it completes, the event says that
    /// the client left.
    pub struct ResponseFuture<F, U>
    where
        U: UsageSink,
    {
        #[pin]
        inner: F,
        recorder: Option<Recorder<U>>,
    }

    impl<F, U> PinnedDrop for ResponseFuture<F, U>
    where
        U: UsageSink,
    {
        fn drop(this: Pin<&mut Self>) {
            if let Some(recorder) = this.project().recorder.take() {
                recorder.finish(RequestOutcome::ClientGone);
            }
        }
    }
}

impl<F, U, B, E> Future for ResponseFuture<F, U>
where
    F: Future<Output = Result<Response<B>, E>>,
    U: UsageSink,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B, U>>, E>;

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

impl<F, U: UsageSink> fmt::Debug for ResponseFuture<F, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

pin_project! {
    /// Response body of [`UsageRecorder`]: the inner service's, at whose end the event is recorded.
    pub struct ResponseBody<B, U>
    where
        B: Body,
        U: UsageSink,
    {
        #[pin]
        inner: ObservedBody<B, ResponseObserver<U>>,
    }
}

impl<B, U> Body for ResponseBody<B, U>
where
    B: Body,
    U: UsageSink,
{
    type Data = B::Data;
    type Error = B::Error;

    delegate_body!();
}

impl<B, U> Default for ResponseBody<B, U>
where
    B: Body + Default,
    U: UsageSink,
{
    fn default() -> Self {
        Self { inner: ObservedBody::default() }
    }
}

impl<B, U> fmt::Debug for ResponseBody<B, U>
where
    B: Body + fmt::Debug,
    U: UsageSink,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResponseBody").field(&self.inner).finish()
    }
}
