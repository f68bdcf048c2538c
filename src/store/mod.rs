//! Stores: the traits that the layers and services use, and the back ends that implement them.
//!
//! | trait | used by | to |
//! |---|---|---|
//! | [`KeyStore`] | `TrialKeyAuthLayer` | find the record of a presented key |
//! | [`QuotaStore`] | `DailyQuotaLayer` | reserve units of a subject's quota |
//! | [`UsageSink`] | `UsageRecorderLayer` | record the event of a finished request |
//! | [`UsageReader`](report::UsageReader) | the reports of key holders and of the operator | read past usage |
//! | `AdminStore` in `admin::store` | `admin_service()` | issue and change keys, read the audit trail |
//! | `ClaimStore` in `admin::store` | `claim_service()` | hand out a key by its claim link |
//!
//! [`CachedKeys`] is a cache of a [`KeyStore`] on another machine.
//!
//! All traits are object safe (`Arc<dyn QuotaStore>` is a [`QuotaStore`]), because their methods
//! return a [`StoreFuture`], which does not allocate if the result is already in memory.
//!
//! # A quota over Redis
//!
//! A store of your own implements the traits that its application needs; [`support`] lists what is there for
//! it. A quota that several processes share is one script at a reservation and one at a refund, for any client
//! of Redis 6.2 or later:
//!
//! ```
//! use std::{sync::Arc, time::UNIX_EPOCH};
//! use tower_quota::{
//!     clock::Calendar,
//!     error::StoreError,
//!     store::{Demand, QuotaStatus, QuotaStore, Refund, ReserveOutcome, StoreFuture},
//! };
//! # struct Client;
//! # impl Client {
//! #     /// `EVAL`
//! #     async fn eval(&self, _script: &str, _keys: [String; 2], _: [i64; 3]) -> std::io::Result<(i64, u64)> {
//! #         Ok((1, 1))
//! #     }
//! # }
//!
//! const RESERVE: &str = "
//!     local used = tonumber(redis.call('GET', KEYS[1]) or '0')
//!     local amount, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
//!     if limit >= 0 and used + amount > limit then return {0, used} end
//!     if amount > 0 then
//!         redis.call('INCRBY', KEYS[1], amount)
//!         redis.call('EXPIREAT', KEYS[1], ARGV[3])
//!     end
//!     return {1, used + amount}";
//! const REFUND: &str = "
//!     local used = tonumber(redis.call('GET', KEYS[1]) or '0')
//!     local amount, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
//!     local refunded = tonumber(redis.call('GET', KEYS[2]) or '0') + amount
//!     if used < amount or limit >= 0 and refunded > limit then return {0, used} end
//!     if limit >= 0 then redis.call('SET', KEYS[2], refunded, 'EXAT', ARGV[3]) end
//!     return {1, redis.call('DECRBY', KEYS[1], amount)}";
//!
//! #[derive(Clone)]
//! struct RedisQuota {
//!     client: Arc<Client>,
//!     calendar: Calendar,
//! }
//!
//! impl RedisQuota {
//!     /// Runs a script. Its result is whether it has changed the count, and the units used.
//!     async fn run(self, script: &str, demand: Demand, amount: u64, limit: Option<u64>) -> Result<(bool, QuotaStatus), StoreError> {
//!         let window = demand.window(&self.calendar);
//!         let key = format!("{}:{{{}}}:{}", demand.quota, demand.subject, window.day);
//!         let keys = [key.clone(), format!("{key}:refunded")];
//!         let expiry = window.end.duration_since(UNIX_EPOCH).map_err(StoreError::unavailable)?.as_secs() + 86_400;
//!         let signed = |number: u64| i64::try_from(number).map_err(StoreError::unavailable);
//!         let values = [signed(amount)?, limit.map_or(Ok(-1), signed)?, signed(expiry)?];
//!         let (changed, used) = self.client.eval(script, keys, values).await.map_err(StoreError::unavailable)?;
//!         let status = QuotaStatus::new(window.day, demand.limit, used, window.end);
//!         Ok((changed == 1, status.quota(demand.quota)))
//!     }
//! }
//!
//! impl QuotaStore for RedisQuota {
//!     fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
//!         let (store, demand) = (self.clone(), demand.clone());
//!         StoreFuture::pending(async move {
//!             let (amount, limit) = (demand.amount, demand.limit.units());
//!             let (admitted, status) = store.clone().run(RESERVE, demand.clone(), amount, limit).await?;
//!             let on_refund = move |refund| {
//!                 let limit = limit.filter(|_| refund == Refund::UpToLimit);
//!                 // A task, as nobody polls the future once the client has left.
//!                 let task = tokio::spawn(store.run(REFUND, demand, amount, limit));
//!                 StoreFuture::pending(async { Ok(task.await.map_err(StoreError::unavailable)??.0) })
//!             };
//!             Ok(if admitted { ReserveOutcome::admitted(status, on_refund) } else { ReserveOutcome::Exhausted(status) })
//!         })
//!     }
//!
//!     fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
//!         let run = self.clone().run(RESERVE, demand.clone(), 0, None);
//!         StoreFuture::pending(async { Ok(run.await?.1) })
//!     }
//! }
//! ```
//!
//! A script runs alone, so the count is exact up to 2⁵³ units. It is as durable as Redis: with `appendfsync everysec` a
//! crash forgets the units of a second, and a failover those that were not replicated, which can be used
//! again. A command whose response is lost may have counted: the request is rejected, and its units stay
//! charged. A refund is tried once.

mod admission;
mod cached_keys;
#[cfg(any(feature = "memory", feature = "engine"))]
pub(crate) mod counter;
#[cfg(feature = "engine")]
pub(crate) mod engine;
mod future;
#[cfg(feature = "engine")]
pub(crate) mod key_cache;
mod keys;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
pub mod migration;
#[cfg(feature = "engine")]
mod open_error;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "engine")]
pub(crate) mod process_lock;
mod quota;
pub mod rate_headers;
pub mod report;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod support;
#[cfg(any(feature = "memory", feature = "engine"))]
pub(crate) mod sync;
mod usage;

pub use self::{
    admission::Admission,
    cached_keys::CachedKeys,
    future::StoreFuture,
    keys::KeyStore,
    quota::{
        Demand, InvalidQuota, Quota, QuotaStatus, QuotaStore, QuotaSubject, Refund, Reservation,
        ReserveAllOutcome, ReserveOutcome,
    },
    usage::{RequestOutcome, Tokens, UsageEvent, UsageSink, plain_path},
};
#[cfg(feature = "usage")]
pub(crate) use usage::{BODY_BROKEN, NO_RESPONSE, STATUS_4XX, STATUS_5XX};
