use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::TrialKeyAuthLayer;
use crate::{
    body::{self, delegate_body},
    error::Reject,
    key::{KeyRecord, SecretKey},
    request::RequestContext,
    store::StoreFuture,
};

pin_project! {
    /// Response future of [`TrialKeyAuth`](super::TrialKeyAuth).
    pub struct ResponseFuture<S, K, R, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        state: State<S, S::Future, K, R, ReqBody, ResBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, K, R, ReqBody, ResBody> {
        Rejected { response: Option<Response<ResponseBody<ResBody>>> },
        // Boxed: rare, and larger than the others.
        LookingUp { lookup: Option<Box<Lookup<S, K, R, ReqBody>>> },
        Calling { #[pin] future: F },
    }
}

/// A key whose record is not in memory, and the request that waits for it.
struct Lookup<S, K, R, ReqBody> {
    layer: Arc<TrialKeyAuthLayer<K, R>>,
    found: StoreFuture<Option<Arc<KeyRecord>>>,
    context: RequestContext,
    key: SecretKey,
    inner: S,
    request: Request<ReqBody>,
}

impl<S, K, R, ReqBody, ResBody> ResponseFuture<S, K, R, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
{
    pub(super) fn rejected(response: Response<ResponseBody<ResBody>>) -> Self {
        Self { state: State::Rejected { response: Some(response) } }
    }

    pub(super) fn calling(future: S::Future) -> Self {
        Self { state: State::Calling { future } }
    }

    pub(super) fn looking_up(
        layer: Arc<TrialKeyAuthLayer<K, R>>,
        found: StoreFuture<Option<Arc<KeyRecord>>>,
        context: RequestContext,
        key: SecretKey,
        inner: S,
        request: Request<ReqBody>,
    ) -> Self {
        let lookup = Lookup { layer, found, context, key, inner, request };
        Self { state: State::LookingUp { lookup: Some(Box::new(lookup)) } }
    }
}

impl<S, K, R, ReqBody, ResBody> Future for ResponseFuture<S, K, R, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    R: Reject,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    /// # Panics
    ///
    /// When polled again after completion.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        const COMPLETED: &str = "`ResponseFuture` polled after completion";
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Rejected { response } => {
                    return Poll::Ready(Ok(response.take().expect(COMPLETED)));
                }
                StateProj::LookingUp { lookup } => {
                    let pending = lookup.as_mut().expect(COMPLETED);
                    let found = ready!(Pin::new(&mut pending.found).poll(cx));
                    let Lookup { layer, context, key, mut inner, request, .. } =
                        *lookup.take().expect(COMPLETED);
                    let at = context.received_at_by(&*layer.clock);
                    let next = match layer.admit(&context, &key, found, at) {
                        Ok(()) => State::Calling { future: inner.call(request) },
                        Err(rejection) => {
                            let response = layer.respond(request.method(), &rejection);
                            State::Rejected { response: Some(response) }
                        }
                    };
                    state.set(next);
                }
                StateProj::Calling { future } => {
                    return future.poll(cx).map_ok(|response| response.map(ResponseBody::inner));
                }
            }
        }
    }
}

pin_project! {
    /// Response body of [`TrialKeyAuth`](super::TrialKeyAuth): the inner service's, or a rejection's.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: body::ResponseBody<B>,
    }
}

impl<B> ResponseBody<B> {
    fn inner(body: B) -> Self {
        Self { inner: body::ResponseBody::inner(body) }
    }

    pub(super) fn respond(method: &Method, response: Response<Bytes>) -> Response<Self> {
        body::ResponseBody::respond(method, response).map(|inner| Self { inner })
    }
}

impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self { inner: body::ResponseBody::default() }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    delegate_body!();
}
