//! Stores: the traits that the layers ask, and the back ends that answer.
//!
//! | trait | asked by | for |
//! |---|---|---|
//! | [`KeyStore`] | `TrialKeyAuthLayer` | the record of a presented key |
//! | [`QuotaStore`] | `DailyQuotaLayer` | one unit of a subject's day |
//! | [`UsageSink`] | `UsageRecorderLayer` | keeping a finished request's event |
//! | [`UsageReader`] | the holder's and the operator's reports | figures of the past |
//! | [`AdminStore`] | `admin_service()` | issuing and changing keys, the audit trail |
//! | [`ClaimStore`] | `claim_service()` | giving a key to whoever has its link |
//!
//! All are object safe (`Arc<dyn QuotaStore>` is a [`QuotaStore`]) because their calls return a
//! [`StoreFuture`], which costs no allocation when the answer is in memory.

mod abandoned;
mod admin;
mod admission;
#[cfg(feature = "sqlite")]
mod allowance;
mod audit;
mod backup;
mod claim;
mod counter;
mod edit;
mod future;
mod import;
#[cfg(feature = "sqlite")]
mod journal;
mod keys;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(all(test, model))]
mod model;
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
mod sync;
mod units;
mod usage;

pub use abandoned::Abandoned;
pub use admin::{Actor, AdminStore, AuditEntry, AuditNote, AuditQuery, KeyRef, NewKey};
pub use admission::Admission;
pub use backup::StoreBackup;
pub use claim::{Claim, ClaimOffer, ClaimOutcome, ClaimState, ClaimStore, ClaimSummary, OnOpened};
pub(crate) use claim::{OFFERED, OPENED, offer_detail, withdraws_claims};
pub use edit::{ChangeOutcome, KeyChange, KeyEdit, KeyPatch, Rotation};
pub use future::StoreFuture;
pub(crate) use import::IMPORTED;
pub use import::{ImportOutcome, ImportedKey, InvalidColumn};
pub use keys::KeyStore;
pub(crate) use once::IDEMPOTENCY_RETENTION;
pub use once::{CreateOutcome, IdempotencyKey, OnIssued};
pub(crate) use page::PagePosition;
pub use page::{InvalidPageCursor, KeyPage, KeyPageQuery, KeySort, PageCursor};
pub use quota::{QuotaStatus, QuotaStore, QuotaSubject, Refund, Reservation, ReserveOutcome};
pub use reader::{GroupBy, ReportPage, UsageQuery, UsageReader, UsageReport, UsageRow};
pub use requests::{RequestQuery, RequestRecord, plain_path};
pub use summary::{InvalidKeyVersion, KeyState, KeySummary, KeyVersion};
pub use units::Units;
#[cfg(any(feature = "usage", feature = "admin"))]
pub(crate) use usage::TokenSums;
#[cfg(feature = "usage")]
pub(crate) use usage::{BODY_BROKEN, NO_ANSWER, STATUS_4XX, STATUS_5XX};
#[cfg(any(feature = "memory", feature = "sqlite"))]
pub(crate) use usage::{MAX_MODELS, OTHER_MODELS};
pub use usage::{RequestOutcome, Tokens, UsageEvent, UsageFigures, UsageSink};
