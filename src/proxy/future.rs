use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::{Response, response::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::{
    IdleTimeout, MaskedBody,
    error::{self, BoxError},
    headers,
    shared::{ProxyBody, Shared},
};
use crate::{
    body::ResponseBody,
    error::{Reject, UpstreamFault},
};

pin_project! {
    /// Response future of [`UpstreamProxyService`](super::UpstreamProxyService).
    pub struct ResponseFuture<F, R, B> {
        #[pin]
        state: State<F, R, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, R, B> {
        Answered { response: Option<Response<ProxyBody<B>>> },
        Waiting { #[pin] future: F, #[pin] timer: Option<Sleep>, shared: Arc<Shared<R>> },
        // Reads the beginning of an answer that is not passed on, for the log.
        Reading {
            #[pin] body: B,
            #[pin] timer: Sleep,
            text: Vec<u8>,
            secret: Option<Arc<[u8]>>,
            response: Option<Response<ProxyBody<B>>>,
        },
    }
}

/// How much of an answer that is not passed on is read for the log, and for how long.
const MOST_LOGGED: usize = 2048;
const READING_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

impl<F, R, B> ResponseFuture<F, R, B> {
    pub(super) fn answered(response: Response<ProxyBody<B>>) -> Self {
        Self { state: State::Answered { response: Some(response) } }
    }

    pub(super) fn waiting(future: F, shared: Arc<Shared<R>>) -> Self {
        let timer = shared.timeouts.head.map(sleep);
        Self { state: State::Waiting { future, timer, shared } }
    }
}

impl<F, R, B, E> Future for ResponseFuture<F, R, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    R: Reject,
    B: Body,
    B::Data: From<Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<ProxyBody<B>>, Infallible>;

    /// # Panics
    ///
    /// When it is polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Answered { response } => {
                    let response = response.take();
                    return Poll::Ready(Ok(
                        response.expect("`ResponseFuture` polled after it was ready")
                    ));
                }
                StateProj::Waiting { future, timer, shared } => {
                    let next = match future.poll(cx) {
                        Poll::Ready(Ok(response)) => judge(response, shared),
                        Poll::Ready(Err(error)) => {
                            let error: BoxError = error.into();
                            let fault = error::classify(&*error);
                            tracing::warn!(
                                fault = fault.code(),
                                ?error,
                                "no answer of the upstream"
                            );
                            State::Answered { response: Some(shared.fault(fault)) }
                        }
                        Poll::Pending => {
                            let Some(timer) = timer.as_pin_mut() else { return Poll::Pending };
                            if timer.poll(cx).is_pending() {
                                return Poll::Pending;
                            }
                            let response = Some(shared.fault(UpstreamFault::Timeout));
                            State::Answered { response }
                        }
                    };
                    state.set(next);
                }
                StateProj::Reading { body, timer, text, secret, response } => {
                    let read = read(body, text, cx);
                    if read.is_pending() && timer.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    log(text, secret.as_deref());
                    let response = response.take();
                    state.set(State::Answered { response });
                }
            }
        }
    }
}

/// Passes an answer on, or replaces it.
fn judge<F, R, B>(response: Response<B>, shared: &Arc<Shared<R>>) -> State<F, R, B>
where
    R: Reject,
{
    let (mut head, body) = response.into_parts();
    headers::strip_hop_by_hop(&mut head.headers);
    let Some(fault) = shared.rules.fault(head.status) else {
        shared.rules.clean_response(&mut head.headers);
        return State::Answered { response: Some(pass_on(head, body, shared)) };
    };
    tracing::warn!(status = head.status.as_u16(), fault = fault.code(), "an answer is replaced");
    let answer = error::answer(&shared.reject, fault, Some(head.status), &head.headers);
    State::Reading {
        body,
        timer: sleep(READING_PATIENCE),
        text: Vec::new(),
        secret: shared.secret.clone(),
        response: Some(ResponseBody::answer(answer)),
    }
}

fn pass_on<R, B>(head: Parts, body: B, shared: &Shared<R>) -> Response<ProxyBody<B>> {
    // Only errors echo credentials.
    let secret = shared.secret.clone().filter(|_| head.status.is_client_error());
    let body = MaskedBody::new(IdleTimeout::new(body, shared.timeouts.idle), secret);
    Response::from_parts(head, ResponseBody::passed(body))
}

/// Reads until the body ends or enough is read.
fn read<B: Body>(mut body: Pin<&mut B>, text: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<()> {
    while text.len() < MOST_LOGGED {
        match body.as_mut().poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None | Some(Err(_))) => break,
            Poll::Ready(Some(Ok(frame))) => {
                if let Ok(mut data) = frame.into_data() {
                    let bytes = data.copy_to_bytes(data.remaining().min(MOST_LOGGED));
                    text.extend_from_slice(&bytes);
                }
            }
        }
    }
    Poll::Ready(())
}

fn log(text: &[u8], secret: Option<&[u8]>) {
    let text = String::from_utf8_lossy(text);
    let secret = secret.and_then(|secret| std::str::from_utf8(secret).ok());
    let text = match secret {
        Some(secret) if !secret.is_empty() => text.replace(secret, "***"),
        _ => text.into_owned(),
    };
    tracing::warn!(text, "what the upstream said");
}
