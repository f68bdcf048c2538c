use std::{
    fmt,
    future::Future,
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
/// See [`DrainLayer`] for its rules.
#[derive(Clone)]
pub struct Drain<S> {
    pub(super) inner: S,
    pub(super) tasks: Option<Arc<DrainTasks>>,
}

impl<S> Drain<S> {
    /// Creates the middleware around `inner`, with these limits.
    pub fn new(inner: S, limits: DrainLimits) -> Self {
        DrainLayer::new(limits).layer(inner)
    }

    inner_accessors!(S);
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
    type Future = DrainFuture<S::Future>;

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

impl<S: fmt::Debug> fmt::Debug for Drain<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// Response future of [`Drain`]. If it is dropped before it completes, a task completes it.
    pub struct DrainFuture<F> {
        #[pin]
        plain: Option<F>,
        drained: Option<Drained<F>>,
    }
}

/// A call that a task completes if it is dropped, because its client has disconnected.
struct Drained<F> {
    call: Option<Call<F>>,
    /// Captured where the bounds of a task are known, so that the struct needs none.
    drain: fn(Call<F>),
}

struct Call<F> {
    future: Pin<Box<F>>,
    method: Method,
    context: RequestContext,
    tasks: Arc<DrainTasks>,
}

impl<F> Drop for Drained<F> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            (self.drain)(call);
        }
    }
}

fn spawn_drain<F, B, E>(call: Call<F>)
where
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body<Data: Send, Error: Send> + Send + 'static,
    E: Send + 'static,
{
    let Call { future, context, tasks, .. } = call;
    context.set_abandoned();
    let max_bytes = tasks.limits.max_bytes;
    tasks.spawn(async move {
        if let Ok(response) = future.await {
            drain(Box::pin(response.into_body()), max_bytes).await;
        }
    });
}

impl<F> DrainFuture<F> {
    fn plain(call: F) -> Self {
        Self { plain: Some(call), drained: None }
    }

    fn drained<B, E>(
        future: F,
        method: Method,
        context: RequestContext,
        tasks: Arc<DrainTasks>,
    ) -> Self
    where
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: Body<Data: Send, Error: Send> + Send + 'static,
        E: Send + 'static,
    {
        let call = Some(Call { future: Box::pin(future), method, context, tasks });
        Self { plain: None, drained: Some(Drained { call, drain: spawn_drain }) }
    }
}

impl<F, B, E> Future for DrainFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data: Send, Error: Send> + Send + 'static,
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
        let call = this.drained.as_mut().and_then(|drained| drained.call.as_mut());
        let call = call.expect("`DrainFuture` polled after completion");
        let result = ready!(call.future.as_mut().poll(cx));
        let Call { method, context, tasks, .. } = call;
        let response = result.map(|response| {
            let (head, body) = response.into_parts();
            let expected = expected_length(method, &head);
            let unread = Unread { context: context.clone(), tasks: tasks.clone(), expected };
            Response::from_parts(head, DrainBody::drained(body, unread))
        });
        if let Some(drained) = this.drained {
            drained.call = None;
        }
        Poll::Ready(response)
    }
}

impl<F> fmt::Debug for DrainFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DrainFuture")
    }
}
