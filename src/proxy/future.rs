use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    ProxyBody, Timeouts,
    cooldown::Turn,
    excerpt::Excerpt,
    secret::Secret,
    shared::{Replaced, Shared},
    upload::Upload,
};
use crate::{
    body::ResponseBody,
    error::{Reject, UpstreamFault},
};

pin_project! {
    /// The answer of an [`UpstreamProxyService`](super::UpstreamProxyService).
    #[derive(Debug)]
    pub struct ResponseFuture<F, B, R> {
        #[pin]
        state: State<F, B>,
        method: Method,
        shared: Arc<Shared<R>>,
        // What must not stand in the answer.
        secret: Option<Secret>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B> {
        Calling {
            #[pin]
            call: F,
            #[pin]
            limit: Option<Sleep>,
            end: Option<Instant>,
            upload: Upload,
            turn: Turn,
        },
        Replacing {
            #[pin]
            excerpt: Excerpt<B>,
            replaced: Option<Replaced>,
        },
        Answered {
            response: Option<Response<Bytes>>,
        },
    }
}

impl<F, B, R> ResponseFuture<F, B, R> {
    pub(super) fn calling(
        call: F,
        method: Method,
        upload: Upload,
        turn: Turn,
        shared: Arc<Shared<R>>,
        secret: Option<Secret>,
    ) -> Self {
        let timeouts = shared.timeouts;
        let end = timeouts.total.and_then(|total| upload.called().checked_add(total));
        let limit = timeouts.for_head(upload.called(), end).map(sleep_until);
        let state = State::Calling { call, limit, end, upload, turn };
        Self { state, method, shared, secret }
    }

    pub(super) fn answered(
        response: Response<Bytes>,
        method: Method,
        shared: Arc<Shared<R>>,
    ) -> Self {
        let state = State::Answered { response: Some(response) };
        Self { state, method, shared, secret: None }
    }
}

impl<F, E, B, R> Future for ResponseFuture<F, B, R>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
    B: Body,
    R: Reject,
{
    type Output = Result<Response<ProxyBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let secret = this.secret.as_ref();
        loop {
            let own = match this.state.as_mut().project() {
                StateProj::Calling { call, limit, end, upload, turn } => match call.poll(cx) {
                    Poll::Ready(Ok(response)) => {
                        let (head, body) = response.into_parts();
                        let replaced = this.shared.replaced(&head);
                        let fault = replaced.as_ref().map(|replaced| replaced.fault);
                        this.shared.note(*turn, fault);
                        let Some(replaced) = replaced else {
                            return Poll::Ready(Ok(this.shared.passed(head, body, *end, secret)));
                        };
                        this.state.set(State::Replacing {
                            excerpt: Excerpt::new(body),
                            replaced: Some(replaced),
                        });
                        continue;
                    }
                    Poll::Ready(Err(error)) => {
                        this.shared.note(*turn, None);
                        this.shared.failure(&*error.into(), upload, secret)
                    }
                    Poll::Pending => {
                        let fault = ready!(late(limit, *end, upload, &this.shared.timeouts, cx));
                        this.shared.note(*turn, Some(fault));
                        this.shared.fault(fault)
                    }
                },
                StateProj::Replacing { excerpt, replaced } => {
                    let text = ready!(excerpt.poll(cx));
                    let replaced = replaced.take().expect("polled after completion");
                    this.shared.replacement(replaced, &text, secret)
                }
                StateProj::Answered { response } => {
                    response.take().expect("polled after completion")
                }
            };
            this.state.set(State::Answered { response: None });
            return Poll::Ready(Ok(ResponseBody::answer(this.method, own)));
        }
    }
}

/// Ready when the time for the head is over, with what that means.
fn late(
    limit: Pin<&mut Option<Sleep>>,
    end: Option<Instant>,
    upload: &Upload,
    timeouts: &Timeouts,
    cx: &mut Context<'_>,
) -> Poll<UpstreamFault> {
    let Some(mut limit) = limit.as_pin_mut() else { return Poll::Pending };
    loop {
        ready!(limit.as_mut().poll(cx));
        let Some(went_on) = upload.went_on() else {
            tracing::warn!("the request could not be sent in time");
            return Poll::Ready(UpstreamFault::Unreached);
        };
        match timeouts.for_head(went_on, end) {
            Some(later) if later > limit.deadline() => limit.as_mut().reset(later),
            _ => break,
        }
    }
    tracing::warn!("the upstream sent no response head in time");
    Poll::Ready(UpstreamFault::Timeout)
}

impl<F, B> std::fmt::Debug for State<F, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Calling { .. } => "Calling",
            Self::Replacing { .. } => "Replacing",
            Self::Answered { .. } => "Answered",
        })
    }
}
