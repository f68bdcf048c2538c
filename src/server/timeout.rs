//! Timeouts for peers that stall or move too few bytes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Transfer rate below which a peer times out eventually.
const MIN_BYTES_PER_SECOND: u32 = 1024;

/// Time budget of a peer: waiting consumes it and transferred bytes restore it. A peer that moves a byte
/// now and then runs out of it.
pub(super) struct MinRateTimeout {
    budget: Duration,
    left: Duration,
    waiting_since: Option<Instant>,
    timer: DeadlineTimer,
}

/// One timer for all waits of a connection. Deadlines mostly move later, so it is reset only when it
/// fires early or would fire late.
#[derive(Default)]
pub(super) struct DeadlineTimer(Option<Pin<Box<Sleep>>>);

impl DeadlineTimer {
    /// Becomes ready at `deadline`.
    pub(super) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
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
    /// Creates a timeout whose budget is never more than `budget`.
    pub(super) fn new(budget: Duration) -> Self {
        Self { budget, left: budget, waiting_since: None, timer: DeadlineTimer::default() }
    }

    /// Records that the peer has transferred `bytes`, which ends the current wait.
    pub(super) fn record(&mut self, bytes: usize) {
        let Some(since) = self.waiting_since.take() else { return };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(bytes.into()) / MIN_BYTES_PER_SECOND;
        let left = self.left.saturating_sub(since.elapsed()).saturating_add(earned);
        self.left = left.min(self.budget);
    }

    /// Becomes ready when the budget is spent. Must be polled only while waiting for the peer.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.waiting_since.get_or_insert_with(Instant::now) + self.left;
        self.timer.poll(deadline, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Returns when a peer that transfers `bytes` after each `pause` times out, if it does.
    async fn expires_after(bytes: usize, pause: Duration) -> Option<Duration> {
        let (mut timeout, start) = (MinRateTimeout::new(Duration::from_secs(10)), Instant::now());
        while start.elapsed() < Duration::from_secs(600) {
            let transfer = tokio::time::sleep(pause);
            tokio::select! {
                () = poll_fn(|cx| timeout.poll_expired(cx)) => return Some(start.elapsed()),
                () = transfer => timeout.record(bytes),
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn slow_trickle_does_not_extend_the_timeout() {
        let second = Duration::from_secs(1);
        assert_eq!(expires_after(0, 60 * second).await.map(|time| time.as_secs()), Some(10));
        assert_eq!(expires_after(1, second).await.map(|time| time.as_secs()), Some(10));
        assert_eq!(expires_after(512, second).await.map(|time| time.as_secs()), Some(19));
        assert_eq!(expires_after(1024, second).await, None);
        assert_eq!(expires_after(8192, 8 * second).await, None);
    }
}
