use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::time::Instant;

use crate::error::UpstreamFault;

/// The `Authorization` header of every request to the upstream.
///
/// Clones share the value, so that it can be replaced while the proxy runs. `Debug` hides it.
///
/// ```
/// use http::HeaderValue;
/// use tower_quota::proxy::UpstreamCredential;
///
/// let credential = UpstreamCredential::new(HeaderValue::from_static("Bearer sk-old"));
/// // … `proxy.credential(credential.clone())` …
/// credential.replace(HeaderValue::from_static("Bearer sk-new"));
/// ```
#[derive(Clone)]
pub struct UpstreamCredential(Arc<ArcSwap<Authorization>>);

/// A header value, and the part of it that is masked.
struct Authorization {
    value: HeaderValue,
    secret: Option<Secret>,
}

impl UpstreamCredential {
    /// Creates a credential with this header value, for example `Bearer sk-…`.
    pub fn new(authorization: HeaderValue) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Authorization::new(authorization))))
    }

    /// Replaces the value for requests that begin from now on. In the responses to requests in flight,
    /// the value that they were sent with is still masked.
    pub fn replace(&self, authorization: HeaderValue) {
        self.0.store(Arc::new(Authorization::new(authorization)));
    }

    /// Returns the value for a request, and the secret to mask in its response.
    pub(super) fn get(&self) -> (HeaderValue, Option<Secret>) {
        let current = self.0.load();
        (current.value.clone(), current.secret.clone())
    }
}

impl Authorization {
    fn new(mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        Self { secret: Secret::from_authorization(&value), value }
    }
}

impl From<HeaderValue> for UpstreamCredential {
    fn from(authorization: HeaderValue) -> Self {
        Self::new(authorization)
    }
}

impl fmt::Debug for UpstreamCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamCredential(…)")
    }
}

/// A text that must not reach a client. `Debug` hides it.
#[derive(Clone)]
pub(super) struct Secret(Arc<[u8]>);

impl Secret {
    /// Returns the secret part of an `Authorization` value, which follows the scheme.
    pub(super) fn from_authorization(value: &HeaderValue) -> Option<Self> {
        let text = value.as_bytes().trim_ascii();
        let start = text.iter().position(|byte| *byte == b' ').map_or(0, |at| at + 1);
        let secret = text[start..].trim_ascii();
        (!secret.is_empty()).then(|| Self(secret.into()))
    }

    pub(super) fn occurs_in(&self, text: &[u8]) -> bool {
        self.find(text).is_some()
    }

    fn find(&self, text: &[u8]) -> Option<usize> {
        text.windows(self.0.len()).position(|window| *window == *self.0)
    }

    /// Overwrites each occurrence of the secret with asterisks.
    pub(super) fn mask(&self, text: &mut [u8]) {
        let mut rest = text;
        while let Some(at) = self.find(rest) {
            let (occurrence, tail) = rest[at..].split_at_mut(self.0.len());
            occurrence.fill(b'*');
            rest = tail;
        }
    }

    /// Returns the number of bytes at the end of `text` that may be the beginning of the secret.
    pub(super) fn partial_match_len(&self, text: &[u8]) -> usize {
        let begins = |length: &usize| text.ends_with(&self.0[..*length]);
        (1..self.0.len()).rev().find(begins).unwrap_or(0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A pause after the upstream rejected the sponsor's credential or balance
/// ([`UpstreamFault::Credentials`]), during which requests are rejected without being sent.
///
/// After the pause one request probes the upstream, and the others are sent again once the credential
/// is accepted. Clones share their state: proxies that use the same credential should share one.
#[derive(Clone, Debug)]
pub struct CredentialCooldown {
    state: Arc<State>,
    /// Whether outcomes of requests are recorded.
    records: bool,
}

#[derive(Debug)]
struct State {
    duration: Duration,
    created_at: Instant,
    /// End of the pause in milliseconds since `created_at`; [`NONE`] while the credential is accepted.
    until: AtomicU64,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The request is sent.
    Send,
    /// The request is sent to find out whether the credential is accepted again; others are rejected
    /// for another pause.
    Probe,
    /// The request is rejected without being sent.
    Reject,
}

const NONE: u64 = 0;

impl CredentialCooldown {
    /// Creates a cooldown that pauses for `duration` after each rejection.
    pub fn new(duration: Duration) -> Self {
        let (created_at, until) = (Instant::now(), AtomicU64::new(NONE));
        Self { state: Arc::new(State { duration, created_at, until }), records: true }
    }

    /// Returns a clone that pauses as this one does but records no outcomes, for requests whose
    /// rejection says nothing about others.
    #[must_use]
    pub fn observing(&self) -> Self {
        Self { records: false, ..self.clone() }
    }

    /// Ends the pause, as there is another credential now.
    pub fn clear(&self) {
        self.state.until.store(NONE, Ordering::Relaxed);
    }

    /// Decides what happens to the next request.
    pub(super) fn decide(&self) -> Decision {
        let until = self.state.until.load(Ordering::Relaxed);
        if until == NONE {
            return Decision::Send;
        }
        let now = Instant::now();
        if self.millis(now) < until {
            return Decision::Reject;
        }
        if !self.records {
            return Decision::Send;
        }
        let next = self.millis(now + self.state.duration);
        match self.state.until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Decision::Probe,
            Err(_) => Decision::Reject,
        }
    }

    /// Records the outcome of a request that was sent.
    pub(super) fn record(&self, decision: Decision, fault: Option<UpstreamFault>) {
        if !self.records {
            return;
        }
        if fault == Some(UpstreamFault::Credentials) {
            let until = self.millis(Instant::now() + self.state.duration);
            self.state.until.store(until, Ordering::Relaxed);
        } else if decision == Decision::Probe {
            self.clear();
        }
    }

    /// Returns the milliseconds since the creation of the state, at least 1.
    fn millis(&self, at: Instant) -> u64 {
        u64::try_from((at - self.state.created_at).as_millis()).unwrap_or(u64::MAX).max(NONE + 1)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);
    const REJECTED: Option<UpstreamFault> = Some(UpstreamFault::Credentials);

    #[tokio::test(start_paused = true)]
    async fn one_request_probes_the_upstream_after_the_pause() {
        let cooldown = CredentialCooldown::new(PAUSE);
        assert_eq!(cooldown.decide(), Decision::Send);
        cooldown.record(Decision::Send, Some(UpstreamFault::Failed));
        assert_eq!(cooldown.decide(), Decision::Send);
        cooldown.record(Decision::Send, REJECTED);
        advance(PAUSE - Duration::from_millis(1)).await;
        assert_eq!(cooldown.decide(), Decision::Reject);
        // This request was sent before the rejection, so its success does not end the pause.
        cooldown.record(Decision::Send, None);
        assert_eq!(cooldown.decide(), Decision::Reject);
        advance(Duration::from_millis(1)).await;
        assert_eq!([cooldown.decide(), cooldown.decide()], [Decision::Probe, Decision::Reject]);
        cooldown.record(Decision::Probe, REJECTED);
        advance(PAUSE).await;
        assert_eq!(cooldown.decide(), Decision::Probe);
        cooldown.record(Decision::Probe, None);
        assert_eq!(cooldown.decide(), Decision::Send);
    }

    #[tokio::test(start_paused = true)]
    async fn an_observing_clone_pauses_and_records_nothing() {
        let cooldown = CredentialCooldown::new(PAUSE);
        let observing = cooldown.observing();
        observing.record(Decision::Send, REJECTED);
        assert_eq!([cooldown.decide(), observing.decide()], [Decision::Send, Decision::Send]);
        cooldown.record(Decision::Send, REJECTED);
        assert_eq!(observing.decide(), Decision::Reject);
        advance(PAUSE).await;
        assert_eq!([observing.decide(), cooldown.decide()], [Decision::Send, Decision::Probe]);
        observing.record(Decision::Send, None);
        assert_eq!(cooldown.decide(), Decision::Reject, "the probe decides");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_never_ends_does_not_delay_the_next() {
        let cooldown = CredentialCooldown::new(PAUSE);
        cooldown.record(Decision::Send, REJECTED);
        for _ in 0..3 {
            advance(PAUSE).await;
            assert_eq!([cooldown.decide(), cooldown.decide()], [Decision::Probe, Decision::Reject]);
        }
    }
}
