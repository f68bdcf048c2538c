//! A cache of the keys of a store on another machine.

use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::{Duration, SystemTime},
};

use http::StatusCode;
use tokio::{sync::Semaphore, task::JoinSet};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    clock::Clock,
    error::{StoreError, StoreErrorKind},
    key::{KeyId, KeyRecord, Limit, SecretKey},
    store::{CachedKeys, KeyStore, StoreFuture},
};

use super::{KEY, hello, request};

/// A store that responds each question once it has a permit.
#[derive(Clone)]
struct Remote {
    keys: Arc<Mutex<HashMap<String, Arc<KeyRecord>>>>,
    fails: Arc<Mutex<Option<StoreErrorKind>>>,
    permits: Arc<Semaphore>,
    lookups: Arc<AtomicUsize>,
}

impl Remote {
    /// A store with one key, which responds without delay.
    fn new() -> Self {
        let remote = Self {
            keys: Arc::default(),
            fails: Arc::default(),
            permits: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            lookups: Arc::default(),
        };
        remote.issue(KEY);
        remote
    }

    fn issue(&self, key: &str) {
        let record = Arc::new(KeyRecord::new(KeyId::from(key), Limit::Unlimited));
        self.keys.lock().unwrap().insert(key.to_owned(), record);
    }

    fn delete(&self, key: &str) {
        self.keys.lock().unwrap().remove(key);
    }

    fn fail(&self, kind: Option<StoreErrorKind>) {
        *self.fails.lock().unwrap() = kind;
    }

    fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }
}

impl KeyStore for Remote {
    fn find(&self, key: &SecretKey) -> StoreFuture<Option<Arc<KeyRecord>>> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let result = match *self.fails.lock().unwrap() {
            Some(kind) => Err(StoreError::new(kind)),
            None => Ok(self.keys.lock().unwrap().get(key.expose()).cloned()),
        };
        let permits = self.permits.clone();
        StoreFuture::pending(async move {
            permits.acquire().await.map_err(StoreError::unavailable)?.forget();
            result
        })
    }
}

#[derive(Clone)]
struct ManualClock(Arc<Mutex<SystemTime>>);

impl ManualClock {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(SystemTime::now())))
    }

    fn advance(&self, seconds: u64) {
        *self.0.lock().unwrap() += Duration::from_secs(seconds);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

/// Whether the key is known, or the kind of the store's error.
async fn find(keys: &CachedKeys, key: &str) -> Result<bool, StoreErrorKind> {
    let found = keys.find(&SecretKey::parse(key).unwrap()).await;
    found.map(|record| record.is_some()).map_err(|error| error.kind())
}

#[tokio::test]
async fn a_record_and_an_unknown_key_are_used_for_their_time() {
    let (remote, clock) = (Remote::new(), ManualClock::new());
    let keys = CachedKeys::new(remote.clone()).clock(clock.clone());
    for (seconds, key, known, lookups) in [
        (0, KEY, true, 1),
        (59, KEY, true, 1),
        (1, KEY, true, 2),
        (0, "trial-key-other", false, 3),
        (4, "trial-key-other", false, 3),
        (1, "trial-key-other", false, 4),
    ] {
        clock.advance(seconds);
        assert_eq!(find(&keys, key).await, Ok(known));
        assert_eq!(remote.lookups(), lookups, "{seconds} s, {key}");
    }
    remote.issue("trial-key-other");
    remote.delete(KEY);
    clock.advance(60);
    assert_eq!(find(&keys, "trial-key-other").await, Ok(true));
    assert_eq!(find(&keys, KEY).await, Ok(false));
}

#[tokio::test]
async fn requests_with_one_key_ask_the_store_once() {
    let remote = Remote { permits: Arc::new(Semaphore::new(0)), ..Remote::new() };
    let keys = CachedKeys::new(remote.clone());
    let mut waiting = JoinSet::new();
    for _ in 0..50 {
        let keys = keys.clone();
        waiting.spawn(async move { find(&keys, KEY).await });
    }
    while remote.lookups() == 0 {
        tokio::task::yield_now().await;
    }
    remote.permits.add_permits(1);
    assert_eq!(waiting.join_all().await, vec![Ok(true); 50]);
    assert_eq!(remote.lookups(), 1);
}

#[tokio::test]
async fn a_lookup_goes_on_when_the_request_that_began_it_is_dropped() {
    let remote = Remote { permits: Arc::new(Semaphore::new(0)), ..Remote::new() };
    let keys = CachedKeys::new(remote.clone());
    let mut cx = Context::from_waker(Waker::noop());
    {
        let mut first = Box::pin(find(&keys, KEY));
        assert!(first.as_mut().poll(&mut cx).is_pending());
        let second = tokio::spawn({
            let keys = keys.clone();
            async move { find(&keys, KEY).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        remote.permits.add_permits(1);
        assert_eq!(second.await.unwrap(), Ok(true));
        assert_eq!(remote.lookups(), 1);
    }
    // Where none waits any longer, the next one starts a lookup.
    keys.clear();
    let mut dropped = Box::pin(find(&keys, KEY));
    assert!(dropped.as_mut().poll(&mut cx).is_pending());
    drop(dropped);
    remote.permits.add_permits(1);
    assert_eq!(find(&keys, KEY).await, Ok(true));
    assert_eq!(remote.lookups(), 3);
}

#[tokio::test]
async fn an_error_is_never_an_unknown_key_and_is_not_cached() {
    let (remote, clock) = (Remote::new(), ManualClock::new());
    let keys = CachedKeys::new(remote.clone())
        .stale_if_error(Duration::from_secs(30))
        .clock(clock.clone());
    remote.fail(Some(StoreErrorKind::Unavailable));
    assert_eq!(find(&keys, KEY).await, Err(StoreErrorKind::Unavailable));
    remote.fail(None);
    assert_eq!(find(&keys, KEY).await, Ok(true));
    assert_eq!(find(&keys, "trial-key-other").await, Ok(false));
    remote.fail(Some(StoreErrorKind::Unavailable));
    clock.advance(89);
    assert_eq!(find(&keys, KEY).await, Ok(true), "stale");
    assert_eq!(find(&keys, "trial-key-other").await, Err(StoreErrorKind::Unavailable));
    clock.advance(1);
    assert_eq!(find(&keys, KEY).await, Err(StoreErrorKind::Unavailable), "too old");

    remote.fail(None);
    assert_eq!(find(&keys, KEY).await, Ok(true));
    clock.advance(60);
    remote.fail(Some(StoreErrorKind::KeyMisconfigured));
    assert_eq!(find(&keys, KEY).await, Err(StoreErrorKind::KeyMisconfigured), "of the key itself");
}

#[tokio::test]
async fn by_default_no_record_is_used_longer_than_its_time() {
    let (remote, clock) = (Remote::new(), ManualClock::new());
    let keys = CachedKeys::new(remote.clone()).clock(clock.clone());
    assert_eq!(find(&keys, KEY).await, Ok(true));
    remote.fail(Some(StoreErrorKind::Unavailable));
    clock.advance(60);
    assert_eq!(find(&keys, KEY).await, Err(StoreErrorKind::Unavailable));
}

#[tokio::test]
async fn an_invalidated_key_is_looked_up_again_also_if_a_lookup_is_under_way() {
    let remote = Remote::new();
    let keys = CachedKeys::new(remote.clone());
    assert_eq!(find(&keys, KEY).await, Ok(true));
    assert_eq!(find(&keys, "trial-key-other").await, Ok(false));
    remote.delete(KEY);
    remote.issue("trial-key-other");
    keys.invalidate(&KeyId::from(KEY));
    assert_eq!(find(&keys, KEY).await, Ok(false));
    assert_eq!(find(&keys, "trial-key-other").await, Ok(true), "was unknown");

    let remote = Remote { permits: Arc::new(Semaphore::new(0)), ..Remote::new() };
    let keys = CachedKeys::new(remote.clone());
    let mut outdated = pin!(find(&keys, KEY));
    assert!(outdated.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    remote.delete(KEY);
    keys.invalidate(&KeyId::from(KEY));
    remote.permits.add_permits(2);
    assert_eq!(outdated.await, Ok(true), "from before");
    assert_eq!(find(&keys, KEY).await, Ok(false));
    assert_eq!(remote.lookups(), 2);
}

#[tokio::test]
async fn unknown_keys_fill_no_memory_and_displace_no_record() {
    let remote = Remote::new();
    let keys = CachedKeys::new(remote.clone()).capacity(100);
    assert_eq!(find(&keys, KEY).await, Ok(true));
    for number in 0..1000 {
        assert_eq!(find(&keys, &format!("guessed-{number}")).await, Ok(false));
    }
    let lookups = remote.lookups();
    assert_eq!(find(&keys, KEY).await, Ok(true));
    assert_eq!(remote.lookups(), lookups, "the record is still there");
    assert_eq!(find(&keys, "guessed-0").await, Ok(false));
    assert_eq!(remote.lookups(), lookups + 1, "the oldest is forgotten");
}

#[tokio::test]
async fn the_records_used_last_are_kept() {
    let remote = Remote::new();
    let keys = CachedKeys::new(remote.clone()).capacity(100);
    let mut records: Vec<Weak<KeyRecord>> = Vec::new();
    for number in 0..1000 {
        let key = format!("trial-key-{number}");
        remote.issue(&key);
        assert_eq!(find(&keys, &key).await, Ok(true));
        records
            .extend(remote.keys.lock().unwrap().remove(&key).map(|record| Arc::downgrade(&record)));
        let lookups = remote.lookups();
        assert_eq!(find(&keys, KEY).await, Ok(true));
        assert!(number == 0 || remote.lookups() == lookups, "used all the time");
    }
    let kept: Vec<bool> = records.iter().map(|record| record.strong_count() > 0).collect();
    let count = kept.iter().filter(|kept| **kept).count();
    assert!((49..100).contains(&count), "{count}");
    assert!(kept[951..].iter().all(|kept| *kept));
}

#[tokio::test]
async fn auth_uses_it_as_any_store() {
    let remote = Remote::new();
    let keys = CachedKeys::new(remote.clone());
    assert!(!format!("{keys:?}").contains(KEY));
    let auth = TrialKeyAuthLayer::new(keys);
    let service = ServiceBuilder::new().layer(auth).service(service_fn(hello));
    for _ in 0..3 {
        let response = service.clone().oneshot(request("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(remote.lookups(), 1);
}
