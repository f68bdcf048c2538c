use std::{fmt, sync::Arc, time::SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Identifier of a key's record. It is not secret: logs, usage events and responses contain it.
///
/// Any text is valid, so that a quota can also apply to subjects other than keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Arc<str>);

/// Maximum number of requests per day, 0–1,000,000,000, where 0 means unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DailyLimit(u32);

/// Error for a daily limit that is not a whole number from 0 (unlimited) to 1,000,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidDailyLimit;

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
    pub daily_limit: DailyLimit,
    /// Time at which the key was issued, if known.
    pub created_at: Option<SystemTime>,
    /// Time from which the key is rejected.
    pub expires_at: Option<SystemTime>,
    /// Whether the operator has disabled the key.
    pub disabled: bool,
}

impl KeyRecord {
    /// Creates the record of an enabled key without label, masked key, or dates.
    pub fn new(id: KeyId, daily_limit: DailyLimit) -> Self {
        Self {
            id,
            masked: String::new(),
            label: String::new(),
            daily_limit,
            created_at: None,
            expires_at: None,
            disabled: false,
        }
    }

    /// Whether the key is neither disabled nor expired at this time.
    pub(crate) fn is_usable(&self, at: SystemTime) -> bool {
        !self.disabled && !self.is_expired(at)
    }

    /// Whether the key has expired at this time.
    pub fn is_expired(&self, at: SystemTime) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= at)
    }
}

impl KeyId {
    /// Creates an id from a text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for KeyId {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.0)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl DailyLimit {
    /// No limit.
    pub const UNLIMITED: Self = Self(0);
    /// Maximum number of requests per day that a limit can have.
    pub const MAX: u32 = 1_000_000_000;

    /// Creates a limit of `requests` per day, 0 for unlimited.
    pub fn new(requests: u32) -> Result<Self, InvalidDailyLimit> {
        if requests <= Self::MAX { Ok(Self(requests)) } else { Err(InvalidDailyLimit) }
    }

    /// Returns the limit as a number, 0 for unlimited.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Returns the limit, or `None` if it is unlimited.
    pub fn limited(self) -> Option<u64> {
        (self.0 > 0).then_some(u64::from(self.0))
    }
}

impl TryFrom<i64> for DailyLimit {
    type Error = InvalidDailyLimit;

    fn try_from(requests: i64) -> Result<Self, InvalidDailyLimit> {
        u32::try_from(requests).map_err(|_| InvalidDailyLimit).and_then(Self::new)
    }
}

impl Serialize for DailyLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl fmt::Display for InvalidDailyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a daily limit is a whole number from 0 (unlimited) to 1000000000")
    }
}

impl std::error::Error for InvalidDailyLimit {}
