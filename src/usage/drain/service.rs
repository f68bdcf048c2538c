use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Method, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    DrainBody, DrainLayer, DrainLimits,
    body::{Unread, drain},
    layer::DrainTasks,
};
use crate::{body::expected_length, request::RequestContext};

/// Middleware that reads responses to their end when their clients have left.
///
/// See the [module](super) for its rules.
pub struct Drain<S> {
    pub(super) inner: S,
    pub(super) tasks: Option<Arc<DrainTasks>>,
}

impl<S> Drain<S> {
    /// Creates the middleware around `inner`, with these limits.
    pub fn new(inner: S, limits: DrainLimits) -> Self {
        DrainLayer::new(limits).layer(inner)
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
        let Some(tasks) = self.tasks.clone() else {
            return DrainFuture::plain(self.inner.call(request));
        };
        let context = RequestContext::of(request.extensions_mut());
        let method = request.method().clone();
        DrainFuture::drained(self.inner.call(request), method, context, tasks)
    }
}

impl<S: Clone> Clone for Drain<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), tasks: self.tasks.clone() }
    }
}

impl<S: fmt::Debug> fmt::Debug for Drain<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// Response future of [`Drain`]. If it is dropped before it completes, a task goes on with it.
    pub struct DrainFuture<F, B, E>
    where
        F: Future<Output = Result<Response<B>, E>>,
        F: Send,
        F: 'static,
        B: Body,
        B: Send,
        B: 'static,
        B::Data: Send,
        B::Error: Send,
        E: Send,
        E: 'static,
    {
        #[pin]
        plain: Option<F>,
        drained: Option<Drained<F>>,
        output: PhantomData<fn() -> Result<B, E>>,
    }

    impl<F, B, E> PinnedDrop for DrainFuture<F, B, E>
    where
        F: Future<Output = Result<Response<B>, E>>,
        F: Send,
        F: 'static,
        B: Body,
        B: Send,
        B: 'static,
        B::Data: Send,
        B::Error: Send,
        E: Send,
        E: 'static,
    {
        fn drop(this: Pin<&mut Self>) {
            let Some(Drained { call, context, tasks, .. }) = this.project().drained.take() else {
                return;
            };
            context.set_abandoned();
            let max_bytes = tasks.limits.max_bytes;
            tasks.spawn(async move {
                if let Ok(response) = call.await {
                    drain(Box::pin(response.into_body()), max_bytes).await;
                }
            });
        }
    }
}

/// A call that goes on when its client has left.
struct Drained<F> {
    call: Pin<Box<F>>,
    method: Method,
    context: RequestContext,
    tasks: Arc<DrainTasks>,
}

impl<F, B, E> DrainFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body<Data: Send, Error: Send> + Send + 'static,
    E: Send + 'static,
{
    fn plain(call: F) -> Self {
        Self { plain: Some(call), drained: None, output: PhantomData }
    }

    fn drained(call: F, method: Method, context: RequestContext, tasks: Arc<DrainTasks>) -> Self {
        let drained = Drained { call: Box::pin(call), method, context, tasks };
        Self { plain: None, drained: Some(drained), output: PhantomData }
    }
}

impl<F, B, E> Future for DrainFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body<Data: Send, Error: Send> + Send + 'static,
    E: Send + 'static,
{
    type Output = Result<Response<DrainBody<B>>, E>;

    /// # Panics
    ///
    /// When polled again after completion.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(plain) = this.plain.as_pin_mut() {
            return plain.poll(cx).map_ok(|response| response.map(DrainBody::plain));
        }
        let drained = this.drained.as_mut().expect("`DrainFuture` polled after completion");
        let result = ready!(drained.call.as_mut().poll(cx));
        let Some(Drained { method, context, tasks, .. }) = this.drained.take() else {
            unreachable!("it was just polled");
        };
        Poll::Ready(result.map(|response| {
            let (head, body) = response.into_parts();
            let expected = expected_length(&method, &head);
            let unread = Unread { context, tasks, expected };
            Response::from_parts(head, DrainBody::drained(body, unread))
        }))
    }
}

impl<F, B, E> fmt::Debug for DrainFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body<Data: Send, Error: Send> + Send + 'static,
    E: Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DrainFuture")
    }
}
