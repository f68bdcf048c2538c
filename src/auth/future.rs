use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{TrialKeyAuthLayer, layer::identify};
use crate::{
    body::{self, delegate_body},
    error::Reject,
    key::{KeyRecord, SecretKey},
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
        Calling { #[pin] future: F, record: Option<Arc<KeyRecord>> },
    }
}

/// A key whose record is not in memory, and the request that waits for it.
struct Lookup<S, K, R, ReqBody> {
    layer: Arc<TrialKeyAuthLayer<K, R>>,
    found: StoreFuture<Option<Arc<KeyRecord>>>,
    key: SecretKey,
    at: SystemTime,
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

    pub(super) fn calling(future: S::Future, record: Arc<KeyRecord>) -> Self {
        Self { state: State::Calling { future, record: Some(record) } }
    }

    pub(super) fn looking_up(
        layer: Arc<TrialKeyAuthLayer<K, R>>,
        found: StoreFuture<Option<Arc<KeyRecord>>>,
        key: SecretKey,
        at: SystemTime,
        inner: S,
        request: Request<ReqBody>,
    ) -> Self {
        let lookup = Lookup { layer, found, key, at, inner, request };
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
                    let Lookup { layer, key, at, mut inner, request, .. } =
                        *lookup.take().expect(COMPLETED);
                    let next = match layer.admit(&key, found, at) {
                        Ok(record) => {
                            let request = identify(request, record.clone());
                            State::Calling { future: inner.call(request), record: Some(record) }
                        }
                        Err(rejected) => {
                            let response = layer.respond(request.method(), rejected);
                            State::Rejected { response: Some(response) }
                        }
                    };
                    state.set(next);
                }
                StateProj::Calling { future, record } => {
                    let mut response = ready!(future.poll(cx))?.map(ResponseBody::inner);
                    response.extensions_mut().insert(record.take().expect(COMPLETED));
                    return Poll::Ready(Ok(response));
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
