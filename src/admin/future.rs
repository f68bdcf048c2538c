use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;

use super::csv::AdminBody;

/// Response future of [`AdminService`](super::AdminService).
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Response<AdminBody>> + Send>>);

impl ResponseFuture {
    pub(super) fn new(future: impl Future<Output = Response<AdminBody>> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<AdminBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
