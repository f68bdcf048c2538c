use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::error::BoxError;

pin_project! {
    /// A body that fails when no frame comes for too long.
    ///
    /// One timer serves the whole body: it is set anew only when it fires before the time is up.
    #[derive(Debug)]
    pub struct IdleTimeout<B> {
        #[pin]
        inner: B,
        limit: Option<Duration>,
        since: Option<Instant>,
        #[pin]
        timer: Option<Sleep>,
    }
}

/// The upstream sent nothing for too long.
#[derive(Clone, Copy, Debug)]
pub struct IdleTimeoutError;

impl<B> IdleTimeout<B> {
    /// Waits at most `limit` for each frame; for ever without one.
    pub fn new(inner: B, limit: Option<Duration>) -> Self {
        Self { inner, limit, since: None, timer: None }
    }
}

impl<B> Body for IdleTimeout<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        if let Poll::Ready(frame) = this.inner.poll_frame(cx) {
            *this.since = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(limit) = *this.limit else { return Poll::Pending };
        let until = *this.since.get_or_insert_with(Instant::now) + limit;
        loop {
            if this.timer.is_none() {
                this.timer.set(Some(sleep_until(until)));
            }
            let Some(mut timer) = this.timer.as_mut().as_pin_mut() else { return Poll::Pending };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if timer.deadline() >= until {
                return Poll::Ready(Some(Err(IdleTimeoutError.into())));
            }
            timer.reset(until);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl fmt::Display for IdleTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upstream sent nothing for too long")
    }
}

impl std::error::Error for IdleTimeoutError {}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_silence_of_the_whole_limit_fails_the_body() {
        let frames = futures_util::stream::unfold(0, |number| async move {
            let pause = if number < 5 { 9 } else { 11 };
            tokio::time::sleep(Duration::from_secs(pause)).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))), number + 1))
        });
        let body = IdleTimeout::new(StreamBody::new(frames), Some(Duration::from_secs(10)));
        let mut body = std::pin::pin!(body);
        for _ in 0..5 {
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert!(body.frame().await.unwrap().unwrap_err().is::<IdleTimeoutError>());
    }
}
