use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    HiddenBody, IncludedBody, UsageAsked,
    head::{change, fit_to_hidden, is_readable_stream},
    included::ReadBody,
};

const OVER: &str = "polled after it was ready";

pin_project! {
    /// Response future of [`IncludeUsage`](super::IncludeUsage).
    pub struct IncludeUsageFuture<S, ReqBody>
    where
        S: Service<Request<IncludedBody<ReqBody>>>,
        ReqBody: Body,
    {
        #[pin]
        state: State<S, S::Future, ReqBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, ReqBody>
    where
        ReqBody: Body,
    {
        // Larger than the other, and only chats come here.
        Reading { reading: Option<Box<Reading<S, ReqBody>>> },
        Calling { #[pin] future: F, is_changed: bool },
    }
}

/// The readied inner service and the request that it will get.
struct Reading<S, B: Body> {
    inner: S,
    head: Parts,
    body: ReadBody<B>,
    max_body: usize,
}

impl<S, ReqBody> IncludeUsageFuture<S, ReqBody>
where
    S: Service<Request<IncludedBody<ReqBody>>>,
    ReqBody: Body,
{
    pub(super) fn calling(future: S::Future) -> Self {
        Self { state: State::Calling { future, is_changed: false } }
    }

    pub(super) fn reading(inner: S, head: Parts, body: ReqBody, max_body: usize) -> Self {
        let reading = Reading { inner, head, body: ReadBody::new(body), max_body };
        Self { state: State::Reading { reading: Some(Box::new(reading)) } }
    }
}

impl<S, ReqBody, ResBody> Future for IncludeUsageFuture<S, ReqBody>
where
    S: Service<Request<IncludedBody<ReqBody>>, Response = Response<ResBody>>,
    ReqBody: Body,
    ReqBody::Data: From<Bytes>,
{
    type Output = Result<Response<ResBody>, S::Error>;

    /// # Panics
    ///
    /// When it is polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Reading { reading: slot } => {
                    let reading = slot.as_mut().expect(OVER);
                    let is_whole = ready!(reading.body.poll_whole(reading.max_body, cx));
                    let Reading { mut inner, mut head, mut body, .. } = *slot.take().expect(OVER);
                    let length = if is_whole { body.include_usage() } else { None };
                    if let Some(length) = length {
                        change(&mut head, length);
                    }
                    let request = Request::from_parts(head, IncludedBody::read(body));
                    let future = inner.call(request);
                    state.set(State::Calling { future, is_changed: length.is_some() });
                }
                StateProj::Calling { future, is_changed } => {
                    let mut response = ready!(future.poll(cx))?;
                    if *is_changed {
                        response.extensions_mut().insert(UsageAsked);
                    }
                    return Poll::Ready(Ok(response));
                }
            }
        }
    }
}

pin_project! {
    /// Response future of [`HideUsage`](super::HideUsage).
    pub struct HideUsageFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F> HideUsageFuture<F> {
    pub(super) fn new(inner: F) -> Self {
        Self { inner }
    }
}

impl<F, B, E> Future for HideUsageFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
    B::Data: From<Bytes>,
{
    type Output = Result<Response<HiddenBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (mut head, body) = ready!(self.project().inner.poll(cx))?.into_parts();
        let is_asked = head.extensions.remove::<UsageAsked>().is_some();
        let body = if is_asked && is_readable_stream(&head) {
            fit_to_hidden(&mut head);
            HiddenBody::hiding(body)
        } else {
            HiddenBody::passed(body)
        };
        Poll::Ready(Ok(Response::from_parts(head, body)))
    }
}
