use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Extensions, Method, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    ResponseBody, Timeouts,
    body::{Excerpt, RequestProgress},
    credential::{Decision, Secret},
    forward::{Config, ReplacedResponse},
};
use crate::error::{RejectedRequest, UpstreamFault};

pin_project! {
    /// The response future of an [`UpstreamProxyService`](super::UpstreamProxyService).
    #[derive(Debug)]
    pub struct ResponseFuture<F, B> {
        #[pin]
        state: State<F, B>,
        request: ForwardedRequest,
        config: Arc<Config>,
        // Must not appear in the response.
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
            timer: Option<Sleep>,
            end: Option<Instant>,
            progress: RequestProgress,
            decision: Decision,
        },
        Replacing {
            #[pin]
            excerpt: Excerpt<B>,
            replaced: Option<ReplacedResponse>,
        },
        Ready {
            response: Option<Response<Bytes>>,
        },
    }
}

/// What is left of a request that was passed to the transport.
#[derive(Debug)]
pub(super) struct ForwardedRequest {
    pub(super) method: Method,
    pub(super) extensions: Extensions,
}

impl<F, B> ResponseFuture<F, B> {
    pub(super) fn calling(
        call: F,
        request: ForwardedRequest,
        progress: RequestProgress,
        decision: Decision,
        config: Arc<Config>,
        secret: Option<Secret>,
    ) -> Self {
        let timeouts = config.timeouts;
        let called_at = progress.called_at();
        let end = timeouts.total.and_then(|total| called_at.checked_add(total));
        let timer = timeouts.head_deadline(called_at, end).map(sleep_until);
        let state = State::Calling { call, timer, end, progress, decision };
        Self { state, request, config, secret }
    }

    pub(super) fn ready(response: Response<Bytes>, method: Method, config: Arc<Config>) -> Self {
        let state = State::Ready { response: Some(response) };
        let request = ForwardedRequest { method, extensions: Extensions::new() };
        Self { state, request, config, secret: None }
    }
}

impl<F, E, B> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (config, secret) = (&**this.config, this.secret.as_ref());
        let ForwardedRequest { method, extensions } = this.request;
        let request = RejectedRequest::forwarded(method, extensions);
        loop {
            let response = match this.state.as_mut().project() {
                StateProj::Calling { call, timer, end, progress, decision } => {
                    match call.poll(cx) {
                        Poll::Ready(Ok(response)) => {
                            let (head, body) = response.into_parts();
                            let replaced = config.replaced(&head);
                            let fault = replaced.as_ref().map(|replaced| replaced.fault);
                            config.record(*decision, fault);
                            let Some(replaced) = replaced else {
                                let response =
                                    config.forward_response(head, body, *end, secret, request);
                                return Poll::Ready(Ok(response));
                            };
                            this.state.set(State::Replacing {
                                excerpt: Excerpt::new(body),
                                replaced: Some(replaced),
                            });
                            continue;
                        }
                        Poll::Ready(Err(error)) => {
                            config.record(*decision, None);
                            config.transport_error(&*error.into(), progress, secret, request)
                        }
                        Poll::Pending => {
                            let timeouts = &config.timeouts;
                            let fault =
                                ready!(poll_head_timeout(timer, *end, progress, timeouts, cx));
                            config.record(*decision, Some(fault));
                            config.fault(fault, request)
                        }
                    }
                }
                StateProj::Replacing { excerpt, replaced } => {
                    let text = ready!(excerpt.poll(cx));
                    let replaced = replaced.take().expect("polled after completion");
                    config.replacement(replaced, &text, secret, request)
                }
                StateProj::Ready { response } => response.take().expect("polled after completion"),
            };
            this.state.set(State::Ready { response: None });
            return Poll::Ready(Ok(ResponseBody::respond(method, response)));
        }
    }
}

/// Polls the timeout of the response head; returns the fault that it stands for.
fn poll_head_timeout(
    timer: Pin<&mut Option<Sleep>>,
    end: Option<Instant>,
    progress: &RequestProgress,
    timeouts: &Timeouts,
    cx: &mut Context<'_>,
) -> Poll<UpstreamFault> {
    let Some(mut timer) = timer.as_pin_mut() else { return Poll::Pending };
    loop {
        ready!(timer.as_mut().poll(cx));
        let Some(last_progress) = progress.last_progress() else {
            tracing::warn!("sending the request timed out: aborting it");
            return Poll::Ready(UpstreamFault::Unreached);
        };
        match timeouts.head_deadline(last_progress, end) {
            Some(deadline) if deadline > timer.deadline() => timer.as_mut().reset(deadline),
            _ => break,
        }
    }
    tracing::warn!("upstream response head timed out: aborting the request");
    Poll::Ready(UpstreamFault::Timeout)
}

impl<F, B> std::fmt::Debug for State<F, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Calling { .. } => "Calling",
            Self::Replacing { .. } => "Replacing",
            Self::Ready { .. } => "Ready",
        })
    }
}
