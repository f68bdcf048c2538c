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

/// Issues and changes keys.
///
/// Every change writes its audit entry in the same step: both are kept or neither. A change is in
/// effect for every request that begins after its answer.
pub trait AdminStore: UsageReader {
    /// Issues keys, all or none.
    fn create(&self, keys: Vec<NewKey>, by: Actor) -> StoreFuture<Vec<KeyRecord>>;

    /// Issues keys, all or none, unless the same request has done so within the last 24 hours. When
    /// they are issued `on_issued` is told, before the future is ready and whether or not anybody
    /// still waits for it.
    fn create_once(
        &self,
        keys: Vec<NewKey>,
        once: IdempotencyKey,
        by: Actor,
        on_issued: OnIssued,
    ) -> StoreFuture<CreateOutcome>;

    /// Takes over keys that were issued elsewhere, and tells of each what came of it. Those that are
    /// known already stay as they are, so that importing twice changes nothing. A dry run tells the
    /// same and changes nothing at all.
    fn import(
        &self,
        keys: Vec<ImportedKey>,
        dry_run: bool,
        by: Actor,
    ) -> StoreFuture<Vec<ImportOutcome>>;

    /// One page of keys, in the order of their issue.
    fn list(&self, query: KeyPageQuery) -> StoreFuture<KeyPage>;

    /// One key, or `None` if it is unknown.
    fn get(&self, key: KeyRef) -> StoreFuture<Option<KeySummary>>;

    /// Changes one key.
    fn change(&self, edit: KeyEdit) -> StoreFuture<ChangeOutcome>;

    /// Makes a claim for a key, in the place of one that was not opened. `None` if the key is
    /// unknown.
    fn offer_claim(&self, offer: ClaimOffer, by: Actor) -> StoreFuture<Option<KeySummary>>;

    /// Notes what happened without changing a key: a refused attempt, or a look.
    fn note(&self, note: AuditNote, by: Actor) -> StoreFuture<()>;

    /// The audit trail, newest first.
    fn audit(&self, query: AuditQuery) -> StoreFuture<Vec<AuditEntry>>;

    /// The day that is counted now.
    fn today(&self) -> Day;

    /// The time by the store's clock.
    fn now(&self) -> SystemTime;

    /// Tries a write.
    fn probe(&self) -> StoreFuture<()>;

    /// Whether all that the store runs in the background still runs. `false` means that only a
    /// restart of the process helps; a store that recovers by itself is alive.
    fn is_alive(&self) -> bool {
        true
    }

    /// A copy of all that the store holds, as an SQLite file that can be opened by itself: every
    /// request that was answered and every change that was made before the call is in it.
    ///
    /// Stores that have no such copy fail with
    /// [`NotSupported`](crate::error::StoreErrorKind::NotSupported), as this default does; one that
    /// makes a copy already may fail with [`Busy`](crate::error::StoreErrorKind::Busy).
    fn backup(&self) -> StoreFuture<StoreBackup> {
        StoreFuture::ready(Err(StoreError::new(StoreErrorKind::NotSupported)))
    }

    /// Sets the gauges of [`metrics`](crate::metrics) that would cost too much to keep up with
    /// every request. To be called before they are read.
    fn set_gauges(&self) -> StoreFuture<()> {
        StoreFuture::ready(Ok(()))
    }
}

/// A key to be issued.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The key; only its hash and masked text are stored.
    pub secret: SecretKey,
    /// What the operator calls it.
    pub label: String,
    /// Requests a day.
    pub daily_limit: DailyLimit,
    /// From when on it is refused.
    pub expires_at: Option<SystemTime>,
}

/// Who does something, for the audit trail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// A short fingerprint of the admin token; never the token.
    pub token_id: String,
    /// Where the request came from.
    pub ip: Option<IpAddr>,
}

/// What happened without changing a key, for the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditNote {
    /// What, for example `admin.refused`.
    pub action: &'static str,
    /// Which key, if it was about one.
    pub key_id: Option<KeyId>,
    /// What more is to be said, as a JSON object. Never a secret.
    pub detail: String,
}

impl AuditNote {
    /// That this happened, and no more.
    pub fn new(action: &'static str) -> Self {
        Self { action, key_id: None, detail: "{}".to_owned() }
    }
}

/// Names a key: by its record's id or by the whole key.
#[derive(Clone)]
pub struct KeyRef {
    text: String,
    secret: Option<SecretKey>,
}

impl KeyRef {
    /// The key of this id, or else the key of this text.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let secret = SecretKey::parse(&text).ok();
        Self { text, secret }
    }

    /// The text as an id.
    pub fn id(&self) -> KeyId {
        KeyId::from(self.text.as_str())
    }

    /// The text as a key, if it can be one.
    pub fn secret(&self) -> Option<&SecretKey> {
        self.secret.as_ref()
    }
}

impl fmt::Debug for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRef(…)")
    }
}

/// Which audit entries are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// At most so many entries.
    pub limit: usize,
    /// Only entries before the one of this number.
    pub before: Option<u64>,
    /// Only this key's.
    pub key_id: Option<KeyId>,
    /// Only actions that begin so.
    pub action: Option<String>,
    /// Only what the holder of this token has done.
    pub token_id: Option<String>,
    /// Only from this time on.
    pub from: Option<SystemTime>,
    /// Only before this time.
    pub until: Option<SystemTime>,
}

impl AuditQuery {
    /// Whether the entry is one that is asked for.
    #[cfg(feature = "memory")]
    pub(crate) fn wants(&self, entry: &AuditEntry) -> bool {
        self.before.is_none_or(|before| entry.number < before)
            && self.key_id.as_ref().is_none_or(|id| entry.key_id.as_ref() == Some(id))
            && self.action.as_ref().is_none_or(|action| entry.action.starts_with(action))
            && self.token_id.as_ref().is_none_or(|id| entry.actor.token_id == *id)
            && self.from.is_none_or(|from| from <= entry.at)
            && self.until.is_none_or(|until| entry.at < until)
    }
}

/// One entry of the audit trail. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number; later entries have larger ones.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// Who.
    pub actor: Actor,
    /// What, for example `key.create`.
    pub action: String,
    /// Which key.
    pub key_id: Option<KeyId>,
    /// What the key is called now, or was when it was deleted.
    pub label: Option<String>,
    /// What changed, as a JSON object of fields.
    pub detail: String,
}

impl<T: AdminStore + ?Sized> AdminStore for Arc<T> {
    fn create(&self, keys: Vec<NewKey>, by: Actor) -> StoreFuture<Vec<KeyRecord>> {
        (**self).create(keys, by)
    }

    fn create_once(
        &self,
        keys: Vec<NewKey>,
        once: IdempotencyKey,
        by: Actor,
        on_issued: OnIssued,
    ) -> StoreFuture<CreateOutcome> {
        (**self).create_once(keys, once, by, on_issued)
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
