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

/// How long the upstream may keep silent. `None` waits for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// From sending the request to the response head. While the request's body goes on, the time
    /// begins anew with each piece: how long a client may take to send it is its server's affair.
    pub head: Option<Duration>,
    /// Between two frames of the response body, while the client waits for one.
    pub idle: Option<Duration>,
    /// From sending the request to the end of the answer. `None` by default, as it cuts healthy
    /// streams, too.
    pub total: Option<Duration>,
}

impl Timeouts {
    /// The default: 120 s for the head and 120 s between frames, and no limit for the whole.
    pub fn new() -> Self {
        let limit = Some(Duration::from_secs(120));
        Self { head: limit, idle: limit, total: None }
    }

    /// Sets the limit for the response head.
    #[must_use]
    pub fn head(self, limit: impl Into<Option<Duration>>) -> Self {
        Self { head: limit.into(), ..self }
    }

    /// Sets the limit between two frames of the response body.
    #[must_use]
    pub fn idle(self, limit: impl Into<Option<Duration>>) -> Self {
        Self { idle: limit.into(), ..self }
    }

    /// Sets the limit for the whole answer.
    #[must_use]
    pub fn total(self, limit: impl Into<Option<Duration>>) -> Self {
        Self { total: limit.into(), ..self }
    }

    /// By when the head must be there, if at all, where the upload went on last at this time and
    /// the whole answer must be there by `end`.
    pub(super) fn for_head(&self, last: Instant, end: Option<Instant>) -> Option<Instant> {
        let head = self.head.and_then(|head| last.checked_add(head));
        head.into_iter().chain(end).min()
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::new()
    }
}

pin_project! {
    /// A body that fails when its reader waits for a frame longer than the limit.
    ///
    /// A slow reader is no slow upstream: the time runs only while a frame is asked for and none
    /// is there. One timer serves the whole body; it is moved on only when it fires early. A
    /// second one, if there is one, ends the body however it goes on.
    #[derive(Debug)]
    pub(super) struct IdleTimeout<B> {
        #[pin]
        inner: B,
        #[pin]
        timer: Option<Sleep>,
        limit: Option<Duration>,
        waiting_since: Option<Instant>,
        end: Option<Pin<Box<Sleep>>>,
    }
}

/// No frame of the body came within the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdleError;

/// The body was not over within the limit for the whole answer.
#[derive(Debug)]
struct TotalError;

impl<B> IdleTimeout<B> {
    /// Limits the wait for each frame of `inner`; `None` only changes the error's type.
    pub(super) fn new(inner: B, limit: Option<Duration>) -> Self {
        Self { inner, timer: None, limit, waiting_since: None, end: None }
    }

    /// Ends the body with an error at this time, too.
    pub(super) fn until(self, end: Option<Instant>) -> Self {
        Self { end: end.map(|end| Box::pin(sleep_until(end))), ..self }
    }
}

impl<B> Body for IdleTimeout<B>
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
        if let Some(end) = this.end
            && end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(broken(TotalError))));
        }
        if let Poll::Ready(frame) = this.inner.poll_frame(cx) {
            *this.waiting_since = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        let Some(limit) = *this.limit else {
            return Poll::Pending;
        };
        let since = *this.waiting_since.get_or_insert_with(Instant::now);
        let Some(deadline) = since.checked_add(limit) else {
            return Poll::Pending;
        };
        if this.timer.is_none() {
            this.timer.set(Some(sleep_until(deadline)));
        }
        while let Some(mut timer) = this.timer.as_mut().as_pin_mut() {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                break;
            }
            timer.reset(deadline);
        }
        Poll::Ready(Some(Err(broken(IdleError))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn broken(error: impl Into<BoxError>) -> BoxError {
    let error = error.into();
    tracing::warn!(error = %Chain(&*error), "the upstream's answer broke off");
    error
}

impl fmt::Display for IdleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upstream sent nothing for too long")
    }
}

impl Error for IdleError {}

impl fmt::Display for TotalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upstream's answer took too long as a whole")
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

    const PACE: [u64; 4] = [50, 90, 90, 200];

    #[tokio::test(start_paused = true)]
    async fn a_body_that_goes_on_and_on_is_over_at_its_end() {
        let frames = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(70)).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        let begun = Instant::now();
        let end = begun + Duration::from_millis(300);
        let body = IdleTimeout::new(StreamBody::new(frames), None).until(Some(end));
        let mut body = std::pin::pin!(body);
        for _ in 0..4 {
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert!(body.frame().await.unwrap().unwrap_err().is::<TotalError>());
        assert!(begun.elapsed() < Duration::from_millis(305));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_wait_for_one_frame_counts() {
        let frames = stream::unfold(0, |at| async move {
            tokio::time::sleep(Duration::from_millis(*PACE.get(at)?)).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))), at + 1))
        });
        let body = IdleTimeout::new(StreamBody::new(frames), Some(Duration::from_millis(100)));
        let mut body = std::pin::pin!(body);
        for _ in &PACE[..3] {
            assert!(body.frame().await.unwrap().is_ok());
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        let asked = Instant::now();
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(error.is::<IdleError>());
        assert!(asked.elapsed() < Duration::from_millis(105));
    }
}
