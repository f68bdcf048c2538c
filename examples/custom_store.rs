//! A store of your own for keys and quotas, over `HashMap`s in one mutex: a database would have a table for each of them,
//! and a transaction for each lock. It keeps everything for ever, in memory.
//!
//! Layers need no more of a store. The example `custom_admin_store` also has what the operator's page, claim links and
//! reports call.
//!
//! `cargo run --example custom_store` uses up a key with two requests a day.

use std::{
    collections::HashMap,
    convert::Infallible,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{Request, Response};
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    clock::{Calendar, Day},
    key::{KeyHash, KeyId, KeyRecord, Limit, SecretKey},
    quota::DailyQuotaLayer,
    store::{
        Demand, KeyStore, Quota, QuotaStatus, QuotaStore, Refund, Reservation, ReserveOutcome,
        StoreFuture,
    },
};

/// Store over `HashMap`s. Clones share their content.
#[derive(Clone, Default)]
pub(crate) struct HashStore(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    keys: HashMap<KeyHash, Arc<KeyRecord>>,
    /// By quota, subject and first day of the period.
    counts: HashMap<(Quota, KeyId, Day), Count>,
}

#[derive(Default)]
struct Count {
    used: u64,
    /// Units that were refunded up to the limit.
    refunded: u64,
}

impl HashStore {
    pub(crate) fn insert(&self, key: &SecretKey, record: KeyRecord) {
        self.tables().keys.insert(key.hash(), Arc::new(record));
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the count of the demand's period. Returns the status after that, too.
    fn count<T>(&self, demand: &Demand, change: impl FnOnce(&mut Count) -> T) -> (T, QuotaStatus) {
        let window = demand.window(&Calendar::utc());
        let (mut tables, subject) = (self.tables(), demand.subject.clone());
        let count = tables.counts.entry((demand.quota, subject, window.day)).or_default();
        let result = change(count);
        let status = QuotaStatus::new(window.day, demand.limit, count.used, window.end);
        (result, status.quota(demand.quota))
    }
}

impl KeyStore for HashStore {
    fn find(&self, key: &SecretKey) -> StoreFuture<Option<Arc<KeyRecord>>> {
        StoreFuture::ready(Ok(self.tables().keys.get(&key.hash()).cloned()))
    }
}

impl QuotaStore for HashStore {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        let (is_admitted, status) = self.count(demand, |count| {
            let limit = demand.limit.units().unwrap_or(u64::MAX);
            let used = count.used.checked_add(demand.amount).filter(|used| *used <= limit);
            count.used = used.unwrap_or(count.used);
            used.is_some()
        });
        let (store, demand, amount) = (self.clone(), demand.clone(), Some(demand.amount));
        StoreFuture::ready(Ok(match is_admitted {
            true => {
                let reservation = Box::new(Reserved { store, demand, amount });
                ReserveOutcome::Admitted { reservation, status }
            }
            false => ReserveOutcome::Exhausted(status),
        }))
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        StoreFuture::ready(Ok(self.count(demand, |_| ()).1))
    }
}

struct Reserved {
    store: HashStore,
    demand: Demand,
    /// Number of charged units, `None` after a refund.
    amount: Option<u64>,
}

impl Reservation for Reserved {
    fn settle(&mut self, actual: u64) -> StoreFuture<()> {
        if let Some(amount) = &mut self.amount {
            let reserved = mem::replace(amount, actual);
            self.store.count(&self.demand, |count| {
                count.used = (count.used - reserved).saturating_add(actual);
            });
        }
        StoreFuture::ready(Ok(()))
    }

    fn refund(&mut self, refund: Refund) -> StoreFuture<bool> {
        let Some(amount) = self.amount.take() else { return StoreFuture::ready(Ok(false)) };
        let limit = self.demand.limit.units().unwrap_or(u64::MAX);
        let (is_refunded, _) = self.store.count(&self.demand, |count| {
            if refund == Refund::UpToLimit {
                let refunded = count.refunded.saturating_add(amount);
                if refunded > limit {
                    return false;
                }
                count.refunded = refunded;
            }
            count.used = count.used.saturating_sub(amount);
            true
        });
        StoreFuture::ready(Ok(is_refunded))
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), BoxError> {
    let (store, key) = (HashStore::default(), SecretKey::parse("trial-alice-key-123")?);
    store.insert(&key, KeyRecord::new(KeyId::from("alice"), Limit::Units(2)));
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store))
        .service(service_fn(async |_: Request<String>| {
            Ok::<_, Infallible>(Response::new("hello".to_owned()))
        }));
    for expected in [200, 200, 429] {
        let request = Request::get("/").header("authorization", "Bearer trial-alice-key-123");
        let response = service.clone().oneshot(request.body(String::new())?).await?;
        println!("{}", response.status());
        assert_eq!(response.status(), expected);
    }
    Ok(())
}
