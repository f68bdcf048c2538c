//! How long a peer may keep the gateway waiting.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Whoever moves fewer bytes a second runs out of min_rate in the end.
const MIN_BYTES_PER_SECOND: u32 = 1024;

/// Time that is spent by waiting and earned by bytes. A peer that moves a byte now and then is not
/// taken for one that goes on.
pub(crate) struct MinRateTimeout {
    most: Duration,
    left: Duration,
    waiting_since: Option<Instant>,
    timer: DeadlineTimer,
}

/// One timer for all waits of a connection, whose deadlines mostly move on: it is reset only when it
/// fires early, or would fire late.
#[derive(Default)]
pub(crate) struct DeadlineTimer(Option<Pin<Box<Sleep>>>);

impl DeadlineTimer {
    /// Ready at `deadline`.
    pub(crate) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

impl MinRateTimeout {
    pub(crate) fn new(most: Duration) -> Self {
        Self { most, left: most, waiting_since: None, timer: DeadlineTimer::default() }
    }

    /// The peer has moved so many bytes.
    pub(crate) fn record(&mut self, bytes: usize) {
        let Some(since) = self.waiting_since.take() else { return };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(bytes.into()) / MIN_BYTES_PER_SECOND;
        let left = self.left.saturating_sub(since.elapsed()).saturating_add(earned);
        self.left = left.min(self.most);
    }

    /// Ready when the peer was waited for too long. To be asked only while it is waited for.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let over = *self.waiting_since.get_or_insert_with(Instant::now) + self.left;
        self.timer.poll(over, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// How long a peer lasts that moves so many bytes at once, so often.
    async fn lasts(bytes: usize, pause: Duration) -> Option<Duration> {
        let (mut min_rate, begun) = (MinRateTimeout::new(Duration::from_secs(10)), Instant::now());
        while begun.elapsed() < Duration::from_secs(600) {
            let moved = tokio::time::sleep(pause);
            tokio::select! {
                () = poll_fn(|cx| min_rate.poll_expired(cx)) => return Some(begun.elapsed()),
                () = moved => min_rate.record(bytes),
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_does_not_buy_time() {
        let second = Duration::from_secs(1);
        assert_eq!(lasts(0, 60 * second).await.map(|time| time.as_secs()), Some(10));
        assert_eq!(lasts(1, second).await.map(|time| time.as_secs()), Some(10));
        assert_eq!(lasts(512, second).await.map(|time| time.as_secs()), Some(19));
        assert_eq!(lasts(1024, second).await, None);
        assert_eq!(lasts(8192, 8 * second).await, None);
    }
}
