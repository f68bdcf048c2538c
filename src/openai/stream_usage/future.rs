use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, request, response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    HiddenBody, IncludedBody, UsageAsked,
    head::{change, fit_to_hidden, is_readable_stream},
    included::{OriginalBody, ReadBody},
    service::Refused,
};

const OVER: &str = "polled after it was ready";

/// How much of a refusal is read to see what it names.
const MAX_REFUSAL: usize = 16 * 1024;

pin_project! {
    /// Response future of [`IncludeUsage`](super::IncludeUsage).
    pub struct IncludeUsageFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<IncludedBody<ReqBody>>>,
        ReqBody: Body,
        ResBody: Body,
    {
        #[pin]
        state: State<S, S::Future, ReqBody, ResBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, ReqBody, ResBody>
    where
        ReqBody: Body,
        ResBody: Body,
    {
        // All but the calls are boxed: they are larger, and only chats come here.
        Reading { reading: Option<Box<Reading<S, ReqBody>>> },
        Calling { #[pin] future: F, sent: Sent<S> },
        // Reads an answer that may refuse the question.
        Judging { judging: Option<Box<Judging<S, ResBody>>> },
        // Waits for the inner service to take the original.
        Resending { original: Option<Box<Original<S>>> },
    }
}

/// The readied inner service and the request that it will get.
struct Reading<S, B: Body> {
    inner: S,
    head: request::Parts,
    body: ReadBody<B>,
    max_body: usize,
    refused: Refused,
}

/// What the inner service was given.
enum Sent<S> {
    /// A request that is not ours to change.
    Untouched,
    /// A request that we have made to ask for usage.
    Changed(Option<Box<Original<S>>>),
    /// The original of one that was refused.
    Original(Refused),
}

/// A request as it was before it was changed, and a service that would take it.
struct Original<S> {
    inner: S,
    head: request::Parts,
    body: OriginalBody,
    refused: Refused,
}

struct Judging<S, B: Body> {
    head: response::Parts,
    body: ReadBody<B>,
    original: Box<Original<S>>,
}

impl<S, ReqBody, ResBody> IncludeUsageFuture<S, ReqBody, ResBody>
where
    S: Service<Request<IncludedBody<ReqBody>>>,
    ReqBody: Body,
    ResBody: Body,
{
    pub(super) fn calling(future: S::Future) -> Self {
        Self { state: State::Calling { future, sent: Sent::Untouched } }
    }

    pub(super) fn reading(
        inner: S,
        head: request::Parts,
        body: ReadBody<ReqBody>,
        max_body: usize,
        refused: Refused,
    ) -> Self {
        let reading = Reading { inner, head, body, max_body, refused };
        Self { state: State::Reading { reading: Some(Box::new(reading)) } }
    }
}

impl<S: Clone, B: Body> Reading<S, B> {
    /// Calls the inner service, with a request that asks for usage if it can be made to.
    fn call<ResBody>(self, is_whole: bool) -> State<S, S::Future, B, ResBody>
    where
        S: Service<Request<IncludedBody<B>>>,
        ResBody: Body,
    {
        let Self { mut inner, mut head, mut body, refused, max_body: _ } = self;
        let changed = if is_whole { body.include_usage() } else { None };
        let sent = match changed {
            None => Sent::Untouched,
            Some((length, original)) => {
                let (inner, head_before) = (inner.clone(), head.clone());
                change(&mut head, length);
                let original = Original { inner, head: head_before, body: original, refused };
                Sent::Changed(Some(Box::new(original)))
            }
        };
        let future = inner.call(Request::from_parts(head, IncludedBody::read(body)));
        State::Calling { future, sent }
    }
}

impl<S, ReqBody, ResBody> Future for IncludeUsageFuture<S, ReqBody, ResBody>
where
    S: Service<Request<IncludedBody<ReqBody>>, Response = Response<ResBody>> + Clone,
    ReqBody: Body,
    ReqBody::Data: From<Bytes>,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
{
    type Output = Result<Response<IncludedBody<ResBody>>, S::Error>;

    /// # Panics
    ///
    /// When it is polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Reading { reading: slot } => {
                    let reading = slot.as_mut().expect(OVER);
                    let is_whole = ready!(reading.body.poll_whole(reading.max_body, cx));
                    let reading = *slot.take().expect(OVER);
                    reading.call(is_whole)
                }
                StateProj::Calling { future, sent } => {
                    let (mut head, body) = ready!(future.poll(cx))?.into_parts();
                    match sent {
                        Sent::Changed(original) if head.status.is_client_error() => {
                            let original = original.take().expect(OVER);
                            let body = ReadBody::new(body);
                            let judging = Some(Box::new(Judging { head, body, original }));
                            state.set(State::Judging { judging });
                            continue;
                        }
                        Sent::Changed(_) => {
                            head.extensions.insert(UsageAsked);
                        }
                        Sent::Original(refused) if head.status.is_success() => refused.set(),
                        Sent::Original(_) | Sent::Untouched => {}
                    }
                    let body = IncludedBody::passed(body);
                    return Poll::Ready(Ok(Response::from_parts(head, body)));
                }
                StateProj::Judging { judging: slot } => {
                    let judging = slot.as_mut().expect(OVER);
                    let _ = ready!(judging.body.poll_whole(MAX_REFUSAL, cx));
                    let Judging { head, body, original } = *slot.take().expect(OVER);
                    if !body.contains("stream_options") {
                        let body = IncludedBody::read(body);
                        return Poll::Ready(Ok(Response::from_parts(head, body)));
                    }
                    State::Resending { original: Some(original) }
                }
                StateProj::Resending { original: slot } => {
                    ready!(slot.as_mut().expect(OVER).inner.poll_ready(cx))?;
                    let Original { mut inner, head, body, refused } = *slot.take().expect(OVER);
                    let body = IncludedBody::read(ReadBody::original(body));
                    let future = inner.call(Request::from_parts(head, body));
                    State::Calling { future, sent: Sent::Original(refused) }
                }
            };
            state.set(next);
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
