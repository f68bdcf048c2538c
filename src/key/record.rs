//! The definition of a key's fields.
//!
//! Everything that depends on the fields of [`KeyRecord`] destructures it, or [`KeyPatch`], without
//! `..`, so that a new field does not compile until each place takes it into account.

use std::{fmt, iter, str::FromStr, time::SystemTime};

#[cfg(feature = "serde")]
use serde::{Serialize, Serializer};
#[cfg(feature = "admin")]
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{InvalidLimit, KeyHash, KeyId, KeyLimit, KeyLimits, Limit, LimitChanges, hex, unhex};
#[cfg(feature = "admin")]
use crate::clock::rfc3339;

/// Record of an issued key. `TrialKeyAuthLayer` puts it into the request's
/// [`RequestContext`](crate::request::RequestContext).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRecord {
    /// Id of the record.
    pub id: KeyId,
    /// The key with its secret part left out.
    pub masked: String,
    /// Label that the operator gives the key.
    pub label: String,
    /// Maximum number of requests per day.
    pub daily_limit: Limit,
    /// Its other limits.
    pub limits: KeyLimits,
    /// Time at which the key was issued, if known.
    pub created_at: Option<SystemTime>,
    /// Time from which the key is rejected.
    pub expires_at: Option<SystemTime>,
    /// Whether the operator has disabled the key.
    pub disabled: bool,
}

/// New values for fields of a record, which every store can keep. Fields that are not set are left
/// unchanged.
///
/// ```
/// use tower_quota::key::{KeyId, KeyPatch, KeyRecord, Limit};
///
/// let patch = KeyPatch::default().daily_limit(Limit::Units(50))?.disabled(true);
/// let mut record = KeyRecord::new(KeyId::from("alice"), Limit::Units(200));
/// patch.apply(&mut record);
/// assert_eq!((record.daily_limit, record.disabled), (Limit::Units(50), true));
///
/// assert!(patch.daily_limit(Limit::Units(0)).is_err());
/// # Ok::<(), tower_quota::key::InvalidLimit>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPatch {
    pub(crate) label: Option<String>,
    pub(crate) daily_limit: Option<Limit>,
    pub(crate) limits: LimitChanges,
    pub(crate) expires_at: Option<Option<SystemTime>>,
    pub(crate) disabled: Option<bool>,
}

/// Version of a key's record, used as an entity tag (RFC 9110, section 8.8.3).
///
/// It is a hash of the record's fields, so that it also changes when a table is edited by hand. Its
/// text form has 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyVersion([u8; 16]);

/// Error for a text that is not a [`KeyVersion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidKeyVersion;

impl KeyRecord {
    /// Creates the record of an enabled key without label, masked key, or dates.
    pub fn new(id: KeyId, daily_limit: Limit) -> Self {
        Self {
            id,
            masked: String::new(),
            label: String::new(),
            daily_limit,
            limits: KeyLimits::default(),
            created_at: None,
            expires_at: None,
            disabled: false,
        }
    }

    /// Checks that files and the admin API have a form for each value of the record.
    ///
    /// # Errors
    ///
    /// A limit has none ([`Limit::to_stored`]).
    #[cfg(any(feature = "admin", feature = "memory", feature = "engine"))]
    pub(crate) fn check(&self) -> Result<(), InvalidLimit> {
        self.daily_limit.to_stored()?;
        self.limits.check()
    }

    /// Whether the key is neither disabled nor expired at this time.
    pub fn is_usable(&self, at: SystemTime) -> bool {
        !self.disabled && !self.is_expired(at)
    }

    /// Whether the key has expired at this time.
    pub fn is_expired(&self, at: SystemTime) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= at)
    }

    /// Returns the fields that the audit trail records, as a JSON object.
    #[cfg(feature = "admin")]
    pub(crate) fn audit_fields(&self) -> Map<String, Value> {
        let Self { id: _, masked, label, daily_limit, limits, created_at: _, expires_at, disabled } =
            self;
        let fields = [
            ("key", json!(masked)),
            ("label", json!(label)),
            ("daily_limit", json!(daily_limit.number())),
            ("expires_at", json!(expires_at.map(rfc3339))),
            ("disabled", json!(disabled)),
        ];
        let limits = limits.iter().map(|(limit, value)| (limit.name(), json!(value.number())));
        fields.into_iter().chain(limits).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Returns the fields of a new key as a JSON object.
    #[cfg(feature = "admin")]
    pub(crate) fn audit_detail(&self) -> String {
        Value::Object(self.audit_fields()).to_string()
    }
}

impl KeyPatch {
    /// Sets the label.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    /// Sets the maximum number of requests per day.
    ///
    /// # Errors
    ///
    /// The limit has no stored form ([`Limit::to_stored`]).
    pub fn daily_limit(self, limit: Limit) -> Result<Self, InvalidLimit> {
        limit.to_stored()?;
        Ok(Self { daily_limit: Some(limit), ..self })
    }

    /// Sets another limit.
    ///
    /// # Errors
    ///
    /// The limit has no stored form ([`Limit::to_stored`]).
    pub fn limit(self, limit: KeyLimit, value: Limit) -> Result<Self, InvalidLimit> {
        value.to_stored()?;
        Ok(Self { limits: self.limits.with(limit, Some(value)), ..self })
    }

    /// Sets the time from which the key is rejected, or removes it.
    #[must_use]
    pub fn expires_at(self, at: Option<SystemTime>) -> Self {
        Self { expires_at: Some(at), ..self }
    }

    /// Sets whether the key is disabled from now on.
    #[must_use]
    pub fn disabled(self, disabled: bool) -> Self {
        Self { disabled: Some(disabled), ..self }
    }

    /// Sets the fields of the record for which the patch has a value.
    pub fn apply(&self, record: &mut KeyRecord) {
        let Self { label, daily_limit, limits, expires_at, disabled } = self;
        limits.apply(&mut record.limits);
        if let Some(label) = label {
            record.label.clone_from(label);
        }
        if let Some(daily_limit) = *daily_limit {
            record.daily_limit = daily_limit;
        }
        if let Some(expires_at) = *expires_at {
            record.expires_at = expires_at;
        }
        if let Some(disabled) = *disabled {
            record.disabled = disabled;
        }
    }
}

impl KeyVersion {
    /// Computes the version of the record of a key with this hash.
    pub fn of(record: &KeyRecord, key: Option<KeyHash>) -> Self {
        let KeyRecord {
            id,
            masked: _,
            label,
            daily_limit,
            limits,
            created_at: _,
            expires_at,
            disabled,
        } = record;
        let time = expires_at.map(|at| at.duration_since(SystemTime::UNIX_EPOCH));
        let mut hash = Sha256::new();
        for text in [id.as_str(), label] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.update(key.map_or([0; 32], |hash| *hash.as_bytes()));
        for limit in iter::once(*daily_limit).chain(limits.iter().map(|(_, limit)| limit)) {
            hash.update(limit.units().map_or([0xff; 8], u64::to_le_bytes));
        }
        hash.update(
            time.and_then(Result::ok).map_or([0xff; 16], |at| at.as_millis().to_le_bytes()),
        );
        hash.update([u8::from(*disabled)]);
        let digest: [u8; 32] = hash.finalize().into();
        let (version, _) = digest.split_at(16);
        KeyVersion(version.try_into().unwrap_or_default())
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

#[cfg(feature = "serde")]
impl Serialize for KeyVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyVersion({self})")
    }
}

impl FromStr for KeyVersion {
    type Err = InvalidKeyVersion;

    fn from_str(text: &str) -> Result<Self, InvalidKeyVersion> {
        let bytes = unhex(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(InvalidKeyVersion)
    }
}

impl fmt::Display for InvalidKeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a version is 32 hexadecimal digits")
    }
}

impl std::error::Error for InvalidKeyVersion {}
