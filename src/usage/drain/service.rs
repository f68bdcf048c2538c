use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{DrainBody, DrainFuture, layer::Drains};
use crate::request::RequestContext;

/// The service of [`DrainLayer`](super::DrainLayer).
pub struct Drain<S> {
    pub(super) inner: S,
    pub(super) drains: Option<Arc<Drains>>,
}

impl<S, B, RB> Service<Request<B>> for Drain<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    RB: Body + Send + 'static,
    RB::Data: Send,
    RB::Error: Send,
{
    type Response = Response<DrainBody<RB>>;
    type Error = S::Error;
    type Future = DrainFuture<S::Future, RB, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(drains) = self.drains.clone() else {
            return DrainFuture::plain(self.inner.call(request));
        };
        let context = RequestContext::of(request.extensions_mut());
        let method = request.method().clone();
        DrainFuture::drained(self.inner.call(request), method, context, drains)
    }
}

impl<S: Clone> Clone for Drain<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), drains: self.drains.clone() }
    }
}

impl<S: fmt::Debug> fmt::Debug for Drain<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("inner", &self.inner).finish_non_exhaustive()
    }
}
