//! Stores: the traits that the layers and services use, and the back ends that implement them.
//!
//! | trait | used by | to |
//! |---|---|---|
//! | [`KeyStore`] | `TrialKeyAuthLayer` | find the record of a presented key |
//! | [`QuotaStore`] | `DailyQuotaLayer` | reserve units of a subject's day |
//! | [`UsageSink`] | `UsageRecorderLayer` | record the event of a finished request |
//! | [`UsageReader`] | the reports of key holders and of the operator | read past usage |
//! | [`AdminStore`] | `admin_service()` | issue and change keys, read the audit trail |
//! | [`ClaimStore`] | `claim_service()` | hand out a key by its claim link |
//!
//! All traits are object safe (`Arc<dyn QuotaStore>` is a [`QuotaStore`]), because their methods
//! return a [`StoreFuture`], which does not allocate if the result is already in memory.

mod admin;
mod audit;
mod backup;
mod claim;
mod edit;
pub(crate) mod engine;
mod future;
mod import;
mod keys;
#[cfg(feature = "memory")]
pub mod memory;
mod once;
mod page;
mod quota;
pub(crate) mod rate_headers;
mod reader;
mod report;
mod requests;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod summary;
mod usage;

#[doc(no_inline)]
pub use crate::key::{InvalidKeyVersion, KeyPatch, KeyVersion};
pub use admin::{Actor, AdminStore, AuditEntry, AuditNote, AuditQuery, KeyRef, NewKey};
pub use backup::StoreBackup;
pub(crate) use claim::{CLAIM_OFFERED, CLAIM_OPENED, offer_detail, withdraws_claims};
pub use claim::{Claim, ClaimOffer, ClaimOutcome, ClaimState, ClaimStore, ClaimSummary, OnOpened};
pub use edit::{ChangeOutcome, KeyChange, KeyEdit, Rotation};
pub use engine::Admission;
pub use future::StoreFuture;
pub(crate) use import::KEY_IMPORTED;
pub use import::{ImportOutcome, ImportedKey, InvalidColumn};
pub(crate) use import::{KEY_COLUMNS, key_cells};
pub use keys::KeyStore;
pub(crate) use once::IDEMPOTENCY_RETENTION;
pub use once::{CreateOutcome, IdempotencyKey, OnIssued};
pub(crate) use page::PagePosition;
pub use page::{InvalidPageCursor, KeyPage, KeyPageQuery, KeySort, PageCursor};
pub use quota::{QuotaStatus, QuotaStore, QuotaSubject, Refund, Reservation, ReserveOutcome};
pub use reader::{GroupBy, ReportPage, UsageQuery, UsageReader, UsageReport, UsageRow};
pub use requests::{RequestQuery, RequestRecord, plain_path};
pub use summary::{KeyState, KeySummary};
#[cfg(any(feature = "usage", feature = "admin"))]
pub(crate) use usage::TokenSums;
#[cfg(feature = "usage")]
pub(crate) use usage::{BODY_BROKEN, NO_ANSWER, STATUS_4XX, STATUS_5XX};
#[cfg(any(feature = "memory", feature = "sqlite"))]
pub(crate) use usage::{MAX_MODELS, OTHER_MODELS};
pub use usage::{RequestOutcome, Tokens, UsageEvent, UsageFigures, UsageSink};
