use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::Service;

/// Answers in a handler's place when it panics.
///
/// tower-http has one too, but it boxes every body; this one leaves the answer's type alone.
#[derive(Clone)]
pub(crate) struct CatchPanic<S, A> {
    inner: S,
    answer: A,
}

impl<S, A> CatchPanic<S, A> {
    /// Calls `answer` for the response to a request whose handling panicked.
    pub(crate) fn new(inner: S, answer: A) -> Self {
        Self { inner, answer }
    }
}

impl<S, A, ReqBody, ResBody> Service<Request<ReqBody>> for CatchPanic<S, A>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    A: Fn() -> Response<ResBody> + Clone,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = CaughtFuture<S::Future, A>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let future = catch_unwind(AssertUnwindSafe(|| self.inner.call(request)));
        CaughtFuture { future: future.inspect_err(report).ok(), answer: self.answer.clone() }
    }
}

pin_project! {
    /// Response future of [`CatchPanic`].
    pub(crate) struct CaughtFuture<F, A> {
        #[pin]
        future: Option<F>,
        answer: A,
    }
}

impl<F, A, ResBody, E> Future for CaughtFuture<F, A>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    A: Fn() -> Response<ResBody>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(future) = this.future.as_pin_mut() else {
            return Poll::Ready(Ok((this.answer)()));
        };
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
        Poll::Ready(match polled {
            Ok(polled) => ready!(polled),
            Err(panic) => {
                report(&panic);
                Ok((this.answer)())
            }
        })
    }
}

/// The panic's message is for the log only.
fn report(panic: &Box<dyn Any + Send>) {
    tracing::error!(message = panic_message(&**panic), "a handler panicked");
}

/// The message that a panic was raised with.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
