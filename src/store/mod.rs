//! Stores: the traits that the layers and services use, and the back ends that implement them.
//!
//! | trait | used by | to |
//! |---|---|---|
//! | [`KeyStore`] | `TrialKeyAuthLayer` | find the record of a presented key |
//! | [`QuotaStore`] | `DailyQuotaLayer` | reserve units of a subject's quota |
//! | [`UsageSink`] | `UsageRecorderLayer` | record the event of a finished request |
//! | [`UsageReader`] | the reports of key holders and of the operator | read past usage |
//! | [`AdminStore`] | `admin_service()` | issue and change keys, read the audit trail |
//! | [`ClaimStore`] | `claim_service()` | hand out a key by its claim link |
//!
//! All traits are object safe (`Arc<dyn QuotaStore>` is a [`QuotaStore`]), because their methods
//! return a [`StoreFuture`], which does not allocate if the result is already in memory.

// What only back ends call is unused without one.
#[cfg_attr(not(any(feature = "engine", feature = "memory")), allow(dead_code))]
mod admin;
mod admission;
#[cfg(any(feature = "memory", feature = "engine"))]
#[cfg_attr(not(all(feature = "memory", feature = "engine")), allow(dead_code))]
pub(crate) mod counter;
#[cfg(feature = "engine")]
pub(crate) mod engine;
mod future;
mod keys;
#[cfg(feature = "memory")]
pub mod memory;
mod quota;
pub mod rate_headers;
#[cfg_attr(not(any(feature = "engine", feature = "memory")), allow(dead_code))]
mod report;
mod requests;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "memory", feature = "engine"))]
pub(crate) mod sync;
mod usage;

pub(crate) use admin::audit::action;
#[cfg(feature = "admin")]
pub(crate) use admin::import::{KEY_COLUMNS, is_label, key_cells};
pub use admin::{
    AdminStore, KeyRef,
    audit::{Actor, AuditEntry, AuditNote, AuditQuery},
    backup::StoreBackup,
    change::{ChangeOutcome, KeyChange, KeyEdit, Rotation},
    claim::{Claim, ClaimOffer, ClaimOutcome, ClaimState, ClaimStore, ClaimSummary, OnOpened},
    create::{CreateOutcome, IdempotencyKey, NewKey, OnIssued},
    import::{ImportOutcome, ImportedKey, InvalidColumn},
    list::{InvalidPageCursor, KeyPage, KeyPageQuery, KeySort, KeyState, KeySummary, PageCursor},
};
#[cfg(any(feature = "engine", feature = "memory"))]
pub(crate) use admin::{
    claim::{offer_detail, withdraws_claims},
    create::IDEMPOTENCY_RETENTION,
    list::PagePosition,
};
pub use admission::Admission;
pub use future::StoreFuture;
pub use keys::KeyStore;
pub use quota::{
    Demand, InvalidQuota, Quota, QuotaStatus, QuotaStore, QuotaSubject, Refund, Reservation,
    ReserveOutcome,
};
pub use report::{GroupBy, ReportPage, UsageQuery, UsageReader, UsageReport, UsageRow};
pub use requests::{RequestQuery, RequestRecord, plain_path};
#[cfg(feature = "usage")]
pub(crate) use usage::{BODY_BROKEN, NO_RESPONSE, STATUS_4XX, STATUS_5XX, TokenSums};
#[cfg(any(feature = "engine", feature = "memory"))]
pub(crate) use usage::{MAX_MODELS_PER_DAY, OTHER_MODELS};
pub use usage::{RequestOutcome, Tokens, UsageEvent, UsageFigures, UsageSink};
