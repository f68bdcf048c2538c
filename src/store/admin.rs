use std::{fmt, net::IpAddr, sync::Arc, time::SystemTime};

use super::{
    ChangeOutcome, ClaimOffer, CreateOutcome, IdempotencyKey, ImportOutcome, ImportedKey, KeyEdit,
    KeyPage, KeyPageQuery, KeySummary, OnIssued, StoreBackup, StoreFuture, UsageReader,
};
use crate::{
    clock::Day,
    error::{StoreError, StoreErrorKind},
    key::{DailyLimit, KeyId, KeyRecord, SecretKey},
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

    /// Sets those gauges of [`metrics`](crate::metrics) that are too expensive to maintain with
    /// every request. Call it before the gauges are read.
    fn set_gauges(&self) -> StoreFuture<()> {
        StoreFuture::ready(Ok(()))
    }
}

/// Key to be issued.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewKey {
    /// The key in clear. Only its hash and its masked form are stored.
    pub secret: SecretKey,
    /// Record of the key. The store sets the time at which the key is issued.
    pub record: KeyRecord,
}

impl NewKey {
    /// Creates a key whose record has a new id and no label or expiry.
    pub fn new(secret: SecretKey, daily_limit: DailyLimit) -> Self {
        let mut record = KeyRecord::new(KeyId::generate(), daily_limit);
        record.masked = secret.masked();
        Self { secret, record }
    }

    /// Returns the record of the key if it is issued at `now`.
    pub(crate) fn issued_at(&self, now: SystemTime) -> KeyRecord {
        KeyRecord { created_at: Some(now), ..self.record.clone() }
    }
}

/// The originator of a change, as recorded in the audit trail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// Short fingerprint of the admin token, never the token itself.
    pub token_id: String,
    /// Client address of the request.
    pub ip: Option<IpAddr>,
}

/// Event that does not change a key, to be recorded in the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditNote {
    /// Name of the event, for example `store.backup`.
    pub action: &'static str,
    /// Key that the event concerns, if any.
    pub key_id: Option<KeyId>,
    /// Further details as a JSON object. Must not contain a secret.
    pub detail: String,
}

impl AuditNote {
    /// Creates a note without a key or details.
    pub fn new(action: &'static str) -> Self {
        Self { action, key_id: None, detail: "{}".to_owned() }
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

/// Selection of audit entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Maximum number of entries.
    pub limit: usize,
    /// Only entries before the one with this number.
    pub before: Option<u64>,
    /// Only entries of this key.
    pub key_id: Option<KeyId>,
    /// Only actions that start with this prefix.
    pub action: Option<String>,
    /// Only entries of the admin token with this fingerprint.
    pub token_id: Option<String>,
    /// Only entries from this time on.
    pub from: Option<SystemTime>,
    /// Only entries before this time.
    pub until: Option<SystemTime>,
}

impl AuditQuery {
    /// Whether the query selects this entry, regardless of its limit.
    #[cfg(feature = "memory")]
    pub(crate) fn matches(&self, entry: &AuditEntry) -> bool {
        self.before.is_none_or(|before| entry.number < before)
            && self.key_id.as_ref().is_none_or(|id| entry.key_id.as_ref() == Some(id))
            && self.action.as_ref().is_none_or(|action| entry.action.starts_with(action))
            && self.token_id.as_ref().is_none_or(|id| entry.actor.token_id == *id)
            && self.from.is_none_or(|from| from <= entry.at)
            && self.until.is_none_or(|until| entry.at < until)
    }
}

/// Entry of the audit trail. Contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Sequence number. Later entries have larger numbers.
    pub number: u64,
    /// Time of the change.
    pub at: SystemTime,
    /// Originator of the change.
    pub actor: Actor,
    /// Name of the change or event, for example `key.create`.
    pub action: String,
    /// Key that the entry concerns, if any.
    pub key_id: Option<KeyId>,
    /// Present label of the key, or its last label if the key was deleted.
    pub label: Option<String>,
    /// Changed fields as a JSON object.
    pub detail: String,
}

impl<T: AdminStore + ?Sized> AdminStore for Arc<T> {
    fn create(&self, keys: Vec<NewKey>, by: Actor) -> StoreFuture<Vec<KeyRecord>> {
        (**self).create(keys, by)
    }

    fn create_once(
        &self,
        keys: Vec<NewKey>,
        idempotency_key: IdempotencyKey,
        by: Actor,
        on_issued: OnIssued,
    ) -> StoreFuture<CreateOutcome> {
        (**self).create_once(keys, idempotency_key, by, on_issued)
    }

    fn import(
        &self,
        keys: Vec<ImportedKey>,
        dry_run: bool,
        by: Actor,
    ) -> StoreFuture<Vec<ImportOutcome>> {
        (**self).import(keys, dry_run, by)
    }

    fn list(&self, query: KeyPageQuery) -> StoreFuture<KeyPage> {
        (**self).list(query)
    }

    fn get(&self, key: KeyRef) -> StoreFuture<Option<KeySummary>> {
        (**self).get(key)
    }

    fn change(&self, edit: KeyEdit) -> StoreFuture<ChangeOutcome> {
        (**self).change(edit)
    }

    fn offer_claim(&self, offer: ClaimOffer, by: Actor) -> StoreFuture<Option<KeySummary>> {
        (**self).offer_claim(offer, by)
    }

    fn note(&self, note: AuditNote, by: Actor) -> StoreFuture<()> {
        (**self).note(note, by)
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<Vec<AuditEntry>> {
        (**self).audit(query)
    }

    fn today(&self) -> Day {
        (**self).today()
    }

    fn now(&self) -> SystemTime {
        (**self).now()
    }

    fn probe(&self) -> StoreFuture<()> {
        (**self).probe()
    }

    fn is_alive(&self) -> bool {
        (**self).is_alive()
    }

    fn backup(&self) -> StoreFuture<StoreBackup> {
        (**self).backup()
    }

    fn set_gauges(&self) -> StoreFuture<()> {
        (**self).set_gauges()
    }
}
