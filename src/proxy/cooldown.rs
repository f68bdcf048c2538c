use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::error::UpstreamFault;

/// Remembers for a while that the upstream refuses the sponsor's credential or balance
/// ([`UpstreamFault::Credentials`]), so that no request asks it again meanwhile. When the time is over
/// one request does, and the others follow once it is not refused.
///
/// Clones share what they know: proxies that use one credential should have one.
#[derive(Clone, Debug)]
pub struct CredentialCooldown {
    state: Arc<State>,
    /// Whether what requests meet is noted.
    learns: bool,
}

#[derive(Debug)]
struct State {
    length: Duration,
    begun: Instant,
    /// When it is over, in milliseconds since `begun`; [`NONE`] while the credential is not refused.
    until: AtomicU64,
}

/// How a request is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is sent: nothing is known against it.
    Regular,
    /// It is sent to find out whether the upstream still refuses. Others are not, for another while.
    Probe,
    /// It is answered without asking the upstream.
    Refused,
}

const NONE: u64 = 0;

impl CredentialCooldown {
    /// A refusal is remembered for so long.
    pub fn new(length: Duration) -> Self {
        let (begun, until) = (Instant::now(), AtomicU64::new(NONE));
        Self { state: Arc::new(State { length, begun, until }), learns: true }
    }

    /// The same, for requests whose own refusals say nothing about others: they wait as all do, and
    /// what they meet is not noted.
    pub fn observing(&self) -> Self {
        Self { learns: false, ..self.clone() }
    }

    /// Forgets a refusal, as there is another credential now.
    pub fn clear(&self) {
        self.state.until.store(NONE, Ordering::Relaxed);
    }

    /// Decides on the next request.
    pub(super) fn turn(&self) -> Turn {
        let until = self.state.until.load(Ordering::Relaxed);
        if until == NONE {
            return Turn::Regular;
        }
        let now = Instant::now();
        if self.millis(now) < until {
            return Turn::Refused;
        }
        if !self.learns {
            return Turn::Regular;
        }
        let next = self.millis(now + self.state.length);
        match self.state.until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Turn::Probe,
            Err(_) => Turn::Refused,
        }
    }

    /// Notes how a request that was sent has ended.
    pub(super) fn note(&self, turn: Turn, fault: Option<UpstreamFault>) {
        if !self.learns {
            return;
        }
        if fault == Some(UpstreamFault::Credentials) {
            let until = self.millis(Instant::now() + self.state.length);
            self.state.until.store(until, Ordering::Relaxed);
        } else if turn == Turn::Probe {
            self.clear();
        }
    }

    /// Milliseconds since this was made, at least 1.
    fn millis(&self, at: Instant) -> u64 {
        u64::try_from((at - self.state.begun).as_millis()).unwrap_or(u64::MAX).max(NONE + 1)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(5);
    const REFUSED: Option<UpstreamFault> = Some(UpstreamFault::Credentials);

    #[tokio::test(start_paused = true)]
    async fn one_request_asks_again_when_it_is_over() {
        let cooldown = CredentialCooldown::new(LENGTH);
        assert_eq!(cooldown.turn(), Turn::Regular);
        cooldown.note(Turn::Regular, Some(UpstreamFault::Failed));
        assert_eq!(cooldown.turn(), Turn::Regular);
        cooldown.note(Turn::Regular, REFUSED);
        advance(LENGTH - Duration::from_millis(1)).await;
        assert_eq!(cooldown.turn(), Turn::Refused);
        // Sent before the refusal, so it says nothing about what holds now.
        cooldown.note(Turn::Regular, None);
        assert_eq!(cooldown.turn(), Turn::Refused);
        advance(Duration::from_millis(1)).await;
        assert_eq!([cooldown.turn(), cooldown.turn()], [Turn::Probe, Turn::Refused]);
        cooldown.note(Turn::Probe, REFUSED);
        advance(LENGTH).await;
        assert_eq!(cooldown.turn(), Turn::Probe);
        cooldown.note(Turn::Probe, None);
        assert_eq!(cooldown.turn(), Turn::Regular);
    }

    #[tokio::test(start_paused = true)]
    async fn who_observes_waits_and_teaches_nothing() {
        let cooldown = CredentialCooldown::new(LENGTH);
        let observing = cooldown.observing();
        observing.note(Turn::Regular, REFUSED);
        assert_eq!([cooldown.turn(), observing.turn()], [Turn::Regular, Turn::Regular]);
        cooldown.note(Turn::Regular, REFUSED);
        assert_eq!(observing.turn(), Turn::Refused);
        advance(LENGTH).await;
        assert_eq!([observing.turn(), cooldown.turn()], [Turn::Regular, Turn::Probe]);
        observing.note(Turn::Regular, None);
        assert_eq!(cooldown.turn(), Turn::Refused, "the probe decides");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_never_ends_does_not_hold_up_the_next() {
        let cooldown = CredentialCooldown::new(LENGTH);
        cooldown.note(Turn::Regular, REFUSED);
        for _ in 0..3 {
            advance(LENGTH).await;
            assert_eq!([cooldown.turn(), cooldown.turn()], [Turn::Probe, Turn::Refused]);
        }
    }
}
