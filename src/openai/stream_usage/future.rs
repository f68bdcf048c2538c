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
    BufferedBody, FilteredBody, UsageRequested,
    buffered::{OriginalBody, ReadBody},
    head::{fit_to_changed, fit_to_filtered, is_readable_stream},
    service::OptionSupport,
};

const COMPLETED: &str = "polled after completion";

/// Maximum length of a client error that is searched for the option.
const MAX_ERROR_LEN: usize = 16 * 1024;

pin_project! {
    /// Response future of [`IncludeUsage`](super::IncludeUsage).
    pub struct IncludeUsageFuture<S, F, ReqBody, ResBody>
    where
        ReqBody: Body,
        ResBody: Body,
    {
        #[pin]
        state: State<S, F, ReqBody, ResBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, ReqBody, ResBody>
    where
        ReqBody: Body,
        ResBody: Body,
    {
        // All but the calls are boxed: they are larger, and only chats need them.
        Reading { reading: Option<Box<Reading<S, ReqBody>>> },
        Calling { #[pin] future: F, sent: Sent<S> },
        // Reads a client error that may reject the option.
        ReadingError { error: Option<Box<ClientError<S, ResBody>>> },
        // Waits until the inner service is ready for the original.
        Resending { original: Option<Box<Original<S>>> },
    }
}

/// The ready inner service and the request for it.
struct Reading<S, B: Body> {
    inner: S,
    head: request::Parts,
    body: ReadBody<B>,
    max_body: usize,
    support: OptionSupport,
}

/// What was sent to the inner service.
enum Sent<S> {
    /// A request as it came.
    Untouched,
    /// A request that was changed to request usage.
    Changed(Option<Box<Original<S>>>),
    /// The original of a request whose change was rejected.
    Original(OptionSupport),
}

/// A request before it was changed, and a clone of the inner service for it.
struct Original<S> {
    inner: S,
    head: request::Parts,
    body: OriginalBody,
    support: OptionSupport,
}

struct ClientError<S, B: Body> {
    head: response::Parts,
    body: ReadBody<B>,
    original: Box<Original<S>>,
}

impl<S, F, ReqBody, ResBody> IncludeUsageFuture<S, F, ReqBody, ResBody>
where
    ReqBody: Body,
    ResBody: Body,
{
    pub(super) fn calling(future: F) -> Self {
        Self { state: State::Calling { future, sent: Sent::Untouched } }
    }

    pub(super) fn reading(
        inner: S,
        head: request::Parts,
        body: ReadBody<ReqBody>,
        max_body: usize,
        support: OptionSupport,
    ) -> Self {
        let reading = Reading { inner, head, body, max_body, support };
        Self { state: State::Reading { reading: Some(Box::new(reading)) } }
    }
}

impl<S: Clone, B: Body> Reading<S, B> {
    /// Calls the inner service, with a request that was changed to request usage if possible.
    fn call<ResBody>(self, is_whole: bool) -> State<S, S::Future, B, ResBody>
    where
        S: Service<Request<BufferedBody<B>>>,
        ResBody: Body,
    {
        let Self { mut inner, mut head, mut body, support, max_body: _ } = self;
        let changed = if is_whole { body.include_usage() } else { None };
        let sent = match changed {
            None => Sent::Untouched,
            Some((length, original)) => {
                let (inner, head_before) = (inner.clone(), head.clone());
                fit_to_changed(&mut head, length);
                let original = Original { inner, head: head_before, body: original, support };
                Sent::Changed(Some(Box::new(original)))
            }
        };
        let future = inner.call(Request::from_parts(head, BufferedBody::read(body)));
        State::Calling { future, sent }
    }
}

impl<S, ReqBody, ResBody> Future for IncludeUsageFuture<S, S::Future, ReqBody, ResBody>
where
    S: Service<Request<BufferedBody<ReqBody>>, Response = Response<ResBody>> + Clone,
    ReqBody: Body,
    ReqBody::Data: From<Bytes>,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
{
    type Output = Result<Response<BufferedBody<ResBody>>, S::Error>;

    /// # Panics
    ///
    /// When polled again after completion.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Reading { reading: slot } => {
                    let reading = slot.as_mut().expect(COMPLETED);
                    let is_whole = ready!(reading.body.poll_whole(reading.max_body, cx));
                    let reading = *slot.take().expect(COMPLETED);
                    reading.call(is_whole)
                }
                StateProj::Calling { future, sent } => {
                    let (mut head, body) = ready!(future.poll(cx))?.into_parts();
                    match sent {
                        Sent::Changed(original) if head.status.is_client_error() => {
                            let original = original.take().expect(COMPLETED);
                            let body = ReadBody::new(body);
                            let error = Some(Box::new(ClientError { head, body, original }));
                            state.set(State::ReadingError { error });
                            continue;
                        }
                        Sent::Changed(_) => {
                            head.extensions.insert(UsageRequested);
                        }
                        Sent::Original(support) if head.status.is_success() => {
                            support.set_rejected()
                        }
                        Sent::Original(_) | Sent::Untouched => {}
                    }
                    let body = BufferedBody::unread(body);
                    return Poll::Ready(Ok(Response::from_parts(head, body)));
                }
                StateProj::ReadingError { error: slot } => {
                    let error = slot.as_mut().expect(COMPLETED);
                    let _ = ready!(error.body.poll_whole(MAX_ERROR_LEN, cx));
                    let ClientError { head, body, original } = *slot.take().expect(COMPLETED);
                    if !body.contains("stream_options") {
                        let body = BufferedBody::read(body);
                        return Poll::Ready(Ok(Response::from_parts(head, body)));
                    }
                    State::Resending { original: Some(original) }
                }
                StateProj::Resending { original: slot } => {
                    ready!(slot.as_mut().expect(COMPLETED).inner.poll_ready(cx))?;
                    let Original { mut inner, head, body, support } =
                        *slot.take().expect(COMPLETED);
                    let body = BufferedBody::read(ReadBody::original(body));
                    let future = inner.call(Request::from_parts(head, body));
                    State::Calling { future, sent: Sent::Original(support) }
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
    type Output = Result<Response<FilteredBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (mut head, body) = ready!(self.project().inner.poll(cx))?.into_parts();
        let is_requested = head.extensions.remove::<UsageRequested>().is_some();
        let body = if is_requested && is_readable_stream(&head) {
            fit_to_filtered(&mut head);
            FilteredBody::filtered(body)
        } else {
            FilteredBody::unfiltered(body)
        };
        Poll::Ready(Ok(Response::from_parts(head, body)))
    }
}
