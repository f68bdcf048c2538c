//! Responses that issued keys, kept in memory for a while so that a repeated request gets the same
//! one. They hold keys in clear text, so they are never written to disk.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{
    admin::{http::error::AdminError, store::IdempotencyKey},
    error::catalog,
};

/// Time for which a response is kept after its request arrived.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// Maximum size of all responses together, in bytes.
const MAX_TOTAL_LEN: usize = 4 * 1024 * 1024;

/// The latest responses by idempotency key, oldest first.
#[derive(Default)]
pub(crate) struct ReplayCache(Mutex<VecDeque<CachedResponse>>);

struct CachedResponse {
    key: IdempotencyKey,
    received_at: SystemTime,
    /// `None` while the request is in progress.
    body: Option<Bytes>,
}

/// Outcome of looking a request up.
pub(crate) enum Replay {
    /// The request is new; its response goes into the slot.
    First(ReplaySlot),
    /// The response that the request has had already.
    Repeated(Bytes),
}

/// The entry of a request in progress. It is removed on drop unless it was filled.
pub(crate) struct ReplaySlot {
    cache: Arc<ReplayCache>,
    key: IdempotencyKey,
}

impl ReplayCache {
    /// Looks the request up and reserves a slot for it if it is new.
    ///
    /// # Errors
    ///
    /// When the request is still in progress, or another one had the same idempotency key.
    pub(crate) fn begin(
        self: &Arc<Self>,
        key: IdempotencyKey,
        now: SystemTime,
    ) -> Result<Replay, AdminError> {
        let mut entries = self.lock();
        let is_old = |entry: &CachedResponse| {
            now.duration_since(entry.received_at).is_ok_and(|age| age > MAX_AGE)
        };
        entries.retain(|entry| entry.body.is_none() || !is_old(entry));
        match entries.iter().find(|entry| entry.key.name() == key.name()) {
            None => {
                entries.push_back(CachedResponse { key, received_at: now, body: None });
                Ok(Replay::First(ReplaySlot { cache: self.clone(), key }))
            }
            Some(entry) if entry.key != key => Err(catalog::IDEMPOTENCY_KEY_REUSED.into()),
            Some(CachedResponse { body: Some(body), .. }) => Ok(Replay::Repeated(body.clone())),
            Some(_) => Err(catalog::REQUEST_IN_PROGRESS.into()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<CachedResponse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReplaySlot {
    /// Stores the response, and evicts the oldest ones if the cache is over its size.
    pub(crate) fn fill(self, body: Bytes) {
        let mut entries = self.cache.lock();
        if let Some(own) = entries.iter_mut().find(|entry| entry.key == self.key) {
            own.body = Some(body);
        }
        let len = |entry: &CachedResponse| entry.body.as_ref().map_or(0, Bytes::len);
        let mut excess = entries.iter().map(len).sum::<usize>().saturating_sub(MAX_TOTAL_LEN);
        entries.retain(|entry| {
            let stays = excess == 0 || entry.body.is_none();
            excess = if stays { excess } else { excess.saturating_sub(len(entry)) };
            stays
        });
    }
}

impl Drop for ReplaySlot {
    fn drop(&mut self) {
        self.cache.lock().retain(|entry| entry.key != self.key || entry.body.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, request: &str) -> IdempotencyKey {
        IdempotencyKey::new("token", name, request.as_bytes())
    }

    fn first(cache: &Arc<ReplayCache>, name: &str, now: SystemTime) -> ReplaySlot {
        match cache.begin(key(name, ""), now).unwrap() {
            Replay::First(slot) => slot,
            Replay::Repeated(_) => panic!("{name} is not new"),
        }
    }

    #[test]
    fn the_oldest_responses_are_evicted_by_size_and_all_by_age() {
        let (cache, now) = (Arc::new(ReplayCache::default()), SystemTime::now());
        let is_known =
            |name: &str, now| matches!(cache.begin(key(name, ""), now), Ok(Replay::Repeated(_)));
        for name in ["a", "b", "c"] {
            first(&cache, name, now).fill(vec![0; MAX_TOTAL_LEN / 2].into());
        }
        assert_eq!(["a", "b", "c"].map(|name| is_known(name, now)), [false, true, true]);
        assert!(!is_known("c", now + MAX_AGE + Duration::from_secs(1)));
    }

    #[test]
    fn a_request_without_a_response_may_be_repeated() {
        let (cache, now) = (Arc::new(ReplayCache::default()), SystemTime::now());
        let slot = first(&cache, "a", now);
        assert!(cache.begin(key("a", ""), now).is_err());
        assert!(cache.begin(key("a", "other"), now).is_err());
        drop(slot);
        assert!(matches!(cache.begin(key("a", "other"), now), Ok(Replay::First(_))));
    }
}
