use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Method, Response};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{
    DrainBody,
    body::{Rest, read_on},
    layer::Drains,
};
use crate::{body::expected_length, request::RequestContext};

pin_project! {
    /// The answer of a [`Drain`](super::Drain). Dropped before it is ready, it goes on for a while.
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
        answer: PhantomData<fn() -> Result<B, E>>,
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
            let Some(Drained { call, context, drains, .. }) = this.project().drained.take() else {
                return;
            };
            context.set_abandoned();
            let most = drains.limits.bytes;
            drains.go_on(async move {
                if let Ok(response) = call.await {
                    read_on(Box::pin(response.into_body()), most).await;
                }
            });
        }
    }
}

/// A call that goes on when nobody waits for it.
struct Drained<F> {
    call: Pin<Box<F>>,
    method: Method,
    context: RequestContext,
    drains: Arc<Drains>,
}

impl<F, B, E> DrainFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body<Data: Send, Error: Send> + Send + 'static,
    E: Send + 'static,
{
    pub(super) fn plain(call: F) -> Self {
        Self { plain: Some(call), drained: None, answer: PhantomData }
    }

    pub(super) fn drained(
        call: F,
        method: Method,
        context: RequestContext,
        drains: Arc<Drains>,
    ) -> Self {
        let drained = Drained { call: Box::pin(call), method, context, drains };
        Self { plain: None, drained: Some(drained), answer: PhantomData }
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
    /// When it is polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(plain) = this.plain.as_pin_mut() {
            return plain.poll(cx).map_ok(|response| response.map(DrainBody::plain));
        }
        let drained = this.drained.as_mut().expect("`DrainFuture` polled after it was ready");
        let answer = ready!(drained.call.as_mut().poll(cx));
        let Some(Drained { method, context, drains, .. }) = this.drained.take() else {
            unreachable!("it was just polled");
        };
        Poll::Ready(answer.map(|response| {
            let (head, body) = response.into_parts();
            let expected = expected_length(&method, &head);
            let rest = Rest { context, drains, expected };
            Response::from_parts(head, DrainBody::drained(body, rest))
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
