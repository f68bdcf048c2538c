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

/// Catches panics of the inner service.
///
/// tower-http's layer boxes the response body; this one does not change its type.
#[derive(Clone)]
pub(crate) struct CatchPanic<S, H> {
    inner: S,
    on_panic: H,
}

impl<S, H> CatchPanic<S, H> {
    /// Wraps `inner`. `on_panic` makes the response to a request whose handler panicked.
    pub(crate) fn new(inner: S, on_panic: H) -> Self {
        Self { inner, on_panic }
    }
}

impl<S, H, ReqBody, ResBody> Service<Request<ReqBody>> for CatchPanic<S, H>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    H: Fn() -> Response<ResBody> + Clone,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = CaughtFuture<S::Future, H>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let future = catch_unwind(AssertUnwindSafe(|| self.inner.call(request)));
        CaughtFuture { future: future.inspect_err(log_panic).ok(), on_panic: self.on_panic.clone() }
    }
}

pin_project! {
    /// Response future of [`CatchPanic`].
    pub(crate) struct CaughtFuture<F, H> {
        #[pin]
        future: Option<F>,
        on_panic: H,
    }
}

impl<F, H, ResBody, E> Future for CaughtFuture<F, H>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    H: Fn() -> Response<ResBody>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(future) = this.future.as_pin_mut() else {
            return Poll::Ready(Ok((this.on_panic)()));
        };
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
        Poll::Ready(match polled {
            Ok(polled) => ready!(polled),
            Err(panic) => {
                log_panic(&panic);
                Ok((this.on_panic)())
            }
        })
    }
}

fn log_panic(panic: &Box<dyn Any + Send>) {
    tracing::error!(reason = panic_message(&**panic), "handler panicked: responding with an error");
}

/// Returns the message of a panic.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
