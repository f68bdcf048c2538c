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

mod admission;
mod cached_keys;
#[cfg(any(feature = "memory", feature = "engine"))]
pub(crate) mod counter;
#[cfg(feature = "engine")]
pub(crate) mod engine;
mod future;
mod keys;
#[cfg(feature = "memory")]
pub mod memory;
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
        ReserveOutcome,
    },
    usage::{RequestOutcome, Tokens, UsageEvent, UsageSink, plain_path},
};
#[cfg(feature = "usage")]
pub(crate) use usage::{BODY_BROKEN, NO_RESPONSE, STATUS_4XX, STATUS_5XX};
