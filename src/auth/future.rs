use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{AuthRejection, TrialKeyAuthLayer, service::admit};
use crate::{
    body,
    key::{KeyRecord, SecretKey},
    request::RequestContext,
    store::StoreFuture,
};

pin_project! {
    /// Response future of [`TrialKeyAuth`](super::TrialKeyAuth).
    pub struct ResponseFuture<S, F, ReqBody> {
        #[pin]
        state: State<S, F, ReqBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, ReqBody> {
        Rejected { method: Method, response: Option<Response<Bytes>> },
        // Boxed: rare, and larger than the others.
        LookingUp { lookup: Option<Box<Lookup<S, ReqBody>>> },
        Calling { #[pin] future: F },
    }
}

/// A key whose record is not in memory, and the request that waits for it.
pub(super) struct Lookup<S, ReqBody> {
    pub(super) found: StoreFuture<Option<Arc<KeyRecord>>>,
    pub(super) context: RequestContext,
    pub(super) key: SecretKey,
    pub(super) at: SystemTime,
    pub(super) layer: Arc<TrialKeyAuthLayer>,
    pub(super) inner: S,
    pub(super) request: Request<ReqBody>,
}

impl<S, F, ReqBody> ResponseFuture<S, F, ReqBody> {
    pub(super) fn rejected(
        layer: &TrialKeyAuthLayer,
        request: &Request<ReqBody>,
        rejection: &AuthRejection,
    ) -> Self {
        Self { state: State::rejected(layer, request, rejection) }
    }

    pub(super) fn calling(future: F) -> Self {
        Self { state: State::Calling { future } }
    }

    pub(super) fn looking_up(lookup: Lookup<S, ReqBody>) -> Self {
        Self { state: State::LookingUp { lookup: Some(Box::new(lookup)) } }
    }
}

impl<S, F, ReqBody> State<S, F, ReqBody> {
    fn rejected(
        layer: &TrialKeyAuthLayer,
        request: &Request<ReqBody>,
        rejection: &AuthRejection,
    ) -> Self {
        let response = Some(layer.render(rejection, request));
        Self::Rejected { method: request.method().clone(), response }
    }
}

impl<S, ReqBody, ResBody> Future for ResponseFuture<S, S::Future, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
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
                StateProj::Rejected { method, response } => {
                    let response = response.take().expect(COMPLETED);
                    let response = body::ResponseBody::respond(method, response);
                    return Poll::Ready(Ok(response.map(|inner| ResponseBody { inner })));
                }
                StateProj::LookingUp { lookup } => {
                    let pending = lookup.as_mut().expect(COMPLETED);
                    let found = ready!(Pin::new(&mut pending.found).poll(cx));
                    let Lookup { found: _, context, key, at, layer, mut inner, request } =
                        *lookup.take().expect(COMPLETED);
                    state.set(match admit(&context, &key, found, at) {
                        Ok(()) => State::Calling { future: inner.call(request) },
                        Err(rejection) => State::rejected(&layer, &request, &rejection),
                    });
                }
                StateProj::Calling { future } => {
                    let inner = |body| ResponseBody { inner: body::ResponseBody::inner(body) };
                    return future.poll(cx).map_ok(|response| response.map(inner));
                }
            }
        }
    }
}

opaque_body! {
    /// Response body of [`TrialKeyAuth`](super::TrialKeyAuth): the inner service's, or a rejection's.
    pub struct ResponseBody<B>(body::ResponseBody<B>) where B::Data: From<Bytes>;
}

/// Returns an empty body.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self { inner: body::ResponseBody::default() }
    }
}
