use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::{UsageObserver, UsageSink, recorder::Recorder};
use crate::{
    body::{ObservedBody, expected_length},
    store::RequestOutcome,
};

pin_project! {
    /// Response future of [`UsageRecorder`](super::UsageRecorder). Dropped before it is ready, it
    /// tells that the client left.
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

impl<F, U: UsageSink> ResponseFuture<F, U> {
    pub(super) fn new(inner: F, recorder: Recorder<U>) -> Self {
        Self { inner, recorder: Some(recorder) }
    }
}

impl<F, U, B, E> Future for ResponseFuture<F, U>
where
    F: Future<Output = Result<Response<B>, E>>,
    U: UsageSink,
    B: Body,
{
    type Output = Result<Response<ObservedBody<B, UsageObserver<U>>>, E>;

    /// # Panics
    ///
    /// When it is polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        let recorder = this.recorder.take().expect("`ResponseFuture` polled after it was ready");
        match answer {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let expected = expected_length(recorder.method(), &head);
                let body = ObservedBody::new(body, recorder.observe(&head), expected);
                Poll::Ready(Ok(Response::from_parts(head, body)))
            }
            Err(error) => {
                recorder.finish(RequestOutcome::Failed);
                Poll::Ready(Err(error))
            }
        }
    }
}
