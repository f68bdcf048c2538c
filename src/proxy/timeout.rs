use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::error::{BoxError, Chain};

/// Timeouts of requests to the upstream. `None` disables one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Maximum time from the request, or from the latest frame of its body, to the response head. How
    /// long a client may take to send the body is up to its server.
    pub head: Option<Duration>,
    /// Maximum time between two frames of the response body, while the client waits for one.
    pub idle: Option<Duration>,
    /// Maximum time from the request to the end of the response body. `None` by default, as it ends
    /// healthy streams, too.
    pub total: Option<Duration>,
}

impl Timeouts {
    /// Creates the default timeouts: 120 s for the head, 120 s between frames, and none in total.
    pub fn new() -> Self {
        let timeout = Some(Duration::from_secs(120));
        Self { head: timeout, idle: timeout, total: None }
    }

    /// Sets the timeout for the response head.
    #[must_use]
    pub fn head(self, timeout: impl Into<Option<Duration>>) -> Self {
        Self { head: timeout.into(), ..self }
    }

    /// Sets the timeout between two frames of the response body.
    #[must_use]
    pub fn idle(self, timeout: impl Into<Option<Duration>>) -> Self {
        Self { idle: timeout.into(), ..self }
    }

    /// Sets the timeout from the request to the end of the response body.
    #[must_use]
    pub fn total(self, timeout: impl Into<Option<Duration>>) -> Self {
        Self { total: timeout.into(), ..self }
    }

    /// Returns the deadline of the response head, where the request body last made progress at
    /// `last_progress` and the whole response is due by `end`.
    pub(super) fn head_deadline(
        &self,
        last_progress: Instant,
        end: Option<Instant>,
    ) -> Option<Instant> {
        let head = self.head.and_then(|head| last_progress.checked_add(head));
        head.into_iter().chain(end).min()
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::new()
    }
}

pin_project! {
    /// A body that fails when its reader waits for a frame longer than the idle timeout, or when it
    /// has not ended by the end of the total timeout.
    ///
    /// A slow reader is not a slow upstream: the idle time runs only while a frame is polled for and none
    /// is ready. One timer serves the whole body; it is reset only when it fires early.
    #[derive(Debug)]
    pub(super) struct TimeoutBody<B> {
        #[pin]
        inner: B,
        #[pin]
        idle_timer: Option<Sleep>,
        idle_timeout: Option<Duration>,
        waiting_since: Option<Instant>,
        total_timer: Option<Pin<Box<Sleep>>>,
    }
}

/// No frame of the body arrived within the idle timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdleError;

/// The body did not end within the total timeout.
#[derive(Debug)]
struct TotalError;

impl<B> TimeoutBody<B> {
    pub(super) fn new(inner: B, idle_timeout: Option<Duration>, end: Option<Instant>) -> Self {
        let total_timer = end.map(|end| Box::pin(sleep_until(end)));
        Self { inner, idle_timer: None, idle_timeout, waiting_since: None, total_timer }
    }
}

impl<B> Body for TimeoutBody<B>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        if let Some(timer) = this.total_timer
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(body_error(TotalError))));
        }
        if let Poll::Ready(frame) = this.inner.poll_frame(cx) {
            *this.waiting_since = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(body_error)));
        }
        let Some(timeout) = *this.idle_timeout else {
            return Poll::Pending;
        };
        let since = *this.waiting_since.get_or_insert_with(Instant::now);
        let Some(deadline) = since.checked_add(timeout) else {
            return Poll::Pending;
        };
        if this.idle_timer.is_none() {
            this.idle_timer.set(Some(sleep_until(deadline)));
        }
        while let Some(mut timer) = this.idle_timer.as_mut().as_pin_mut() {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                break;
            }
            timer.reset(deadline);
        }
        Poll::Ready(Some(Err(body_error(IdleError))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn body_error(error: impl Into<BoxError>) -> BoxError {
    let error = error.into();
    tracing::warn!(error = %Chain(&*error), "upstream response ended early: aborting the response");
    error
}

impl fmt::Display for IdleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upstream sent nothing within the idle timeout")
    }
}

impl Error for IdleError {}

impl fmt::Display for TotalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upstream's response did not end within the total timeout")
    }
}

impl Error for TotalError {}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};
    use std::convert::Infallible;

    const DELAYS: [u64; 4] = [50, 90, 90, 200];

    #[tokio::test(start_paused = true)]
    async fn a_body_fails_at_the_end_of_the_total_timeout() {
        let frames = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(70)).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        let start = Instant::now();
        let end = start + Duration::from_millis(300);
        let body = TimeoutBody::new(StreamBody::new(frames), None, Some(end));
        let mut body = std::pin::pin!(body);
        for _ in 0..4 {
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert!(body.frame().await.unwrap().unwrap_err().is::<TotalError>());
        assert!(start.elapsed() < Duration::from_millis(305));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_wait_for_a_single_frame_counts() {
        let frames = stream::unfold(0, |at| async move {
            tokio::time::sleep(Duration::from_millis(*DELAYS.get(at)?)).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))), at + 1))
        });
        let timeout = Some(Duration::from_millis(100));
        let body = TimeoutBody::new(StreamBody::new(frames), timeout, None);
        let mut body = std::pin::pin!(body);
        for _ in &DELAYS[..3] {
            assert!(body.frame().await.unwrap().is_ok());
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        let polled = Instant::now();
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(error.is::<IdleError>());
        assert!(polled.elapsed() < Duration::from_millis(105));
    }
}
