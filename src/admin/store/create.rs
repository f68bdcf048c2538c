//! Creation of keys.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

use crate::key::{InvalidLimit, KeyId, KeyRecord, SecretKey};

/// Key to be issued. Every store can keep its record.
///
/// ```
/// use tower_quota::{
///     admin::store::NewKey,
///     key::{KeyId, KeyRecord, Limit, SecretKey},
/// };
///
/// let secret = SecretKey::parse("trial-key-manual-123")?;
/// let mut record = KeyRecord::new(KeyId::generate(), Limit::Units(200));
/// record.label = "Alice".to_owned();
/// let key = NewKey::new(secret.clone(), record)?;
/// assert_eq!(key.record().masked, "trial-key-…");
///
/// let record = KeyRecord::new(KeyId::generate(), Limit::Units(0));
/// assert!(NewKey::new(secret, record).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct NewKey {
    secret: SecretKey,
    record: KeyRecord,
}

impl NewKey {
    /// Creates a key with this record, whose `masked` it sets. The store sets the time at which the key is
    /// issued.
    ///
    /// # Errors
    ///
    /// The record's limit has no stored form ([`Limit::to_stored`](crate::key::Limit::to_stored)).
    pub fn new(secret: SecretKey, mut record: KeyRecord) -> Result<Self, InvalidLimit> {
        record.check()?;
        record.masked = secret.masked();
        Ok(Self { secret, record })
    }

    /// Returns the key in clear. Only its hash and its masked form are stored.
    pub fn secret(&self) -> &SecretKey {
        &self.secret
    }

    /// Returns the record of the key.
    pub fn record(&self) -> &KeyRecord {
        &self.record
    }

    /// Returns the record of the key if it is issued at `now`.
    pub fn issued_at(&self, now: SystemTime) -> KeyRecord {
        KeyRecord { created_at: Some(now), ..self.record.clone() }
    }
}

/// Identifies a request that may be retried (draft-ietf-httpapi-idempotency-key-header). Contains
/// only hashes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyKey {
    name: [u8; 32],
    request: [u8; 32],
}

/// Outcome of an idempotent creation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateOutcome {
    /// The keys were issued.
    Issued(Vec<KeyRecord>),
    /// The same request has already issued these keys, and none were issued now.
    Replayed(Vec<KeyId>),
    /// A different request has used this idempotency key, and no keys were issued.
    OtherRequest,
}

/// Callback that receives the records of issued keys.
pub type OnIssued = Box<dyn FnOnce(&[KeyRecord]) + Send>;

impl IdempotencyKey {
    /// Time for which a store remembers the key of a request: 24 hours.
    pub const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

    /// Creates the key of a request from the id of the token that authenticates it, the value of
    /// its `Idempotency-Key` header, and its content.
    pub fn new(token_id: &str, name: &str, request: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update((token_id.len() as u64).to_le_bytes());
        hash.update(token_id);
        hash.update(name);
        Self { name: hash.finalize().into(), request: Sha256::digest(request).into() }
    }

    /// Returns the hash of the token's id and the header's value.
    pub fn name(&self) -> [u8; 32] {
        self.name
    }

    /// Returns the hash of the request's content.
    pub fn request(&self) -> [u8; 32] {
        self.request
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey(…)")
    }
}
