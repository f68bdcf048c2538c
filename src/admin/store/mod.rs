//! The stores of the admin and claim services: the traits [`AdminStore`] and [`ClaimStore`], and
//! their types.
//!
//! | trait | used by | to |
//! |---|---|---|
//! | [`AdminStore`] | [`admin_service()`](crate::admin::admin_service) | issue and change keys, read the audit trail |
//! | [`ClaimStore`] | [`claim_service()`](crate::admin::claim_service) | hand out a key by its claim link |
//!
//! An [`AdminStore`] is also a [`UsageReader`]. The stores of this crate implement both traits. Who writes
//! a store finds what they have in common:
//!
//! | a store needs | and finds |
//! |---|---|
//! | the record of a new key | [`NewKey::issued_at`] |
//! | what a change does | [`KeyEdit::applies_to`], [`KeyPatch::apply`](crate::key::KeyPatch::apply), [`Rotation::old_until`], [`KeyChange::withdraws_claims`] |
//! | entries of the audit trail | [`AuditNote::created`] and others, [`AuditEntry::new`], [`AuditQuery::matches`] |
//! | pages of keys | [`KeyPageQuery::finds`] and [`KeyPageQuery::page`], or [`PageCursor::position`] and [`KeyPage::new`] |
//! | the nodes of a database that processes share | [`NodeSummary::new`], [`AuditNote::node_released`] |
//! | the state of a claim | [`ClaimSummary::state`], [`Claim::new`] |
//! | reports | [`store::support`](crate::store::support) |

/// Implements a store trait for `Arc<T>`, whose methods call those of `T`. Lints miss a method that is
/// not listed although it has a default.
macro_rules! forward_to_arc {
    ($trait:ident {
        $(fn $name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*
    }) => {
        #[deny(clippy::missing_trait_methods)]
        impl<T: $trait + ?Sized> $trait for std::sync::Arc<T> {
            $(fn $name(&self, $($argument: $type),*) -> $output {
                (**self).$name($($argument),*)
            })*
        }
    };
}

mod audit;
mod backup;
mod change;
mod claim;
mod create;
mod import;
mod list;
mod node;

use std::{fmt, time::SystemTime};

pub(crate) use self::{
    audit::action,
    import::{KEY_COLUMNS, is_label, key_cells},
};
pub use self::{
    audit::{Actor, AuditEntry, AuditNote, AuditQuery},
    backup::StoreBackup,
    change::{ChangeOutcome, KeyChange, KeyEdit, Rotation},
    claim::{Claim, ClaimOffer, ClaimOutcome, ClaimState, ClaimStore, ClaimSummary, OnOpened},
    create::{CreateOutcome, IdempotencyKey, NewKey, OnIssued},
    import::{ImportOutcome, ImportedKey, InvalidColumn},
    list::{
        InvalidPageCursor, KeyPage, KeyPageQuery, KeySort, KeyState, KeySummary, PageCursor,
        PagePosition,
    },
    node::{NodeState, NodeSummary, ReleaseOutcome},
};
use crate::{
    clock::Day,
    error::{StoreError, StoreErrorKind},
    key::{KeyId, KeyRecord, SecretKey},
    store::{StoreFuture, report::UsageReader},
};

/// Issues and changes keys, and keeps the audit trail.
///
/// Every change is stored atomically with its audit entry. Once the returned future is ready, the
/// change applies to every request that begins afterwards.
pub trait AdminStore: UsageReader {
    /// Issues keys, all or none.
    fn create(&self, keys: Vec<NewKey>, by: Actor) -> StoreFuture<Vec<KeyRecord>>;

    /// Issues keys, all or none, unless a request with the same idempotency key has done so within
    /// the last 24 hours.
    ///
    /// `on_issued` is called once the keys are issued, before the future is ready, and also if the
    /// future has been dropped.
    fn create_once(
        &self,
        keys: Vec<NewKey>,
        idempotency_key: IdempotencyKey,
        by: Actor,
        on_issued: OnIssued,
    ) -> StoreFuture<CreateOutcome>;

    /// Imports keys that were issued elsewhere and returns the outcome for each. Keys that already
    /// exist are left unchanged, so importing twice has no effect. A dry run returns the same
    /// outcomes without changing anything.
    fn import(
        &self,
        keys: Vec<ImportedKey>,
        dry_run: bool,
        by: Actor,
    ) -> StoreFuture<Vec<ImportOutcome>>;

    /// Returns one page of keys.
    fn list(&self, query: KeyPageQuery) -> StoreFuture<KeyPage>;

    /// Returns one key, or `None` if it is unknown.
    fn get(&self, key: KeyRef) -> StoreFuture<Option<KeySummary>>;

    /// Changes one key.
    fn change(&self, edit: KeyEdit) -> StoreFuture<ChangeOutcome>;

    /// Creates a claim for a key, which replaces the key's claim that has not been opened yet, if
    /// there is one. Returns `None` if the key is unknown.
    fn offer_claim(&self, offer: ClaimOffer, by: Actor) -> StoreFuture<Option<KeySummary>>;

    /// Adds an audit entry for an event that does not change a key, such as a rejected attempt to
    /// authenticate.
    fn note(&self, note: AuditNote, by: Actor) -> StoreFuture<()>;

    /// Returns entries of the audit trail, newest first.
    fn audit(&self, query: AuditQuery) -> StoreFuture<Vec<AuditEntry>>;

    /// Returns the current day in the quota's time zone.
    fn today(&self) -> Day;

    /// Returns the current time by the store's clock.
    fn now(&self) -> SystemTime;

    /// Performs a write to check that the store is writable.
    fn probe(&self) -> StoreFuture<()>;

    /// Whether all background work of the store is still running. `false` means that only a restart
    /// of the process helps; a store that recovers by itself is alive.
    fn is_alive(&self) -> bool {
        true
    }

    /// Returns a copy of the whole store as an SQLite file that can be opened on its own. It
    /// contains every request that was completed and every change that was made before the call.
    ///
    /// # Errors
    ///
    /// [`NotSupported`](crate::error::StoreErrorKind::NotSupported) if the store cannot make such a
    /// copy, which is the default, and [`Busy`](crate::error::StoreErrorKind::Busy) while it makes
    /// another one.
    fn backup(&self) -> StoreFuture<StoreBackup> {
        StoreFuture::ready(Err(StoreError::new(StoreErrorKind::NotSupported)))
    }

    /// Returns the nodes of the database, by number: the processes that count there, or have counted. Empty, which is
    /// the default, if the store belongs to one process.
    fn nodes(&self) -> StoreFuture<Vec<NodeSummary>> {
        StoreFuture::ready(Ok(Vec::new()))
    }

    /// Gives up a silent node whose journal is lost for good: units that it may have used count as used, and requests
    /// that it had not ended as failed. Its journal is not accepted any more. By default no node is known.
    fn release_node(&self, number: u32, by: Actor) -> StoreFuture<ReleaseOutcome> {
        let _ = (number, by);
        StoreFuture::ready(Ok(ReleaseOutcome::UnknownNode))
    }

    /// Sets those gauges of [`metrics`](crate::metrics) that are too expensive to maintain with
    /// every request. Call it before the gauges are read.
    fn set_gauges(&self) -> StoreFuture<()> {
        StoreFuture::ready(Ok(()))
    }
}

/// Reference to a key, by the id of its record or by the key itself.
#[derive(Clone)]
pub struct KeyRef {
    text: String,
    secret: Option<SecretKey>,
}

impl KeyRef {
    /// Creates a reference to the key with this id or, if there is none, to this key in clear.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let secret = SecretKey::parse(&text).ok();
        Self { text, secret }
    }

    /// Returns the text as an id.
    pub fn id(&self) -> KeyId {
        KeyId::from(self.text.as_str())
    }

    /// Returns the text as a key, if it is a valid one.
    pub fn secret(&self) -> Option<&SecretKey> {
        self.secret.as_ref()
    }
}

impl fmt::Debug for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRef(…)")
    }
}

forward_to_arc!(AdminStore {
    fn create(keys: Vec<NewKey>, by: Actor) -> StoreFuture<Vec<KeyRecord>>;
    fn create_once(
        keys: Vec<NewKey>,
        idempotency_key: IdempotencyKey,
        by: Actor,
        on_issued: OnIssued
    ) -> StoreFuture<CreateOutcome>;
    fn import(keys: Vec<ImportedKey>, dry_run: bool, by: Actor) -> StoreFuture<Vec<ImportOutcome>>;
    fn list(query: KeyPageQuery) -> StoreFuture<KeyPage>;
    fn get(key: KeyRef) -> StoreFuture<Option<KeySummary>>;
    fn change(edit: KeyEdit) -> StoreFuture<ChangeOutcome>;
    fn offer_claim(offer: ClaimOffer, by: Actor) -> StoreFuture<Option<KeySummary>>;
    fn note(note: AuditNote, by: Actor) -> StoreFuture<()>;
    fn audit(query: AuditQuery) -> StoreFuture<Vec<AuditEntry>>;
    fn today() -> Day;
    fn now() -> SystemTime;
    fn probe() -> StoreFuture<()>;
    fn is_alive() -> bool;
    fn backup() -> StoreFuture<StoreBackup>;
    fn nodes() -> StoreFuture<Vec<NodeSummary>>;
    fn release_node(number: u32, by: Actor) -> StoreFuture<ReleaseOutcome>;
    fn set_gauges() -> StoreFuture<()>;
});
