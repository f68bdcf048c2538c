use std::{fmt, sync::Arc, time::SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a key's record. It is no secret: logs, events and answers show it.
///
/// Any text serves, so that a quota can be kept for subjects that are no keys at all.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Arc<str>);

/// Requests a day. 0 means unlimited; at most 10⁹.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DailyLimit(u32);

/// A daily limit is a whole number from 0 (unlimited) to 1,000,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidDailyLimit;

/// What is known of an issued key. `TrialKeyAuthLayer` puts it, as `Arc<KeyRecord>`, into the
/// extensions of the request and of its response.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRecord {
    /// The record's id.
    pub id: KeyId,
    /// The key with its secret part left out, for people.
    pub masked: String,
    /// What the operator calls it.
    pub label: String,
    /// Requests a day.
    pub daily_limit: DailyLimit,
    /// When it was issued, if that is known.
    pub created_at: Option<SystemTime>,
    /// From when on it is refused.
    pub expires_at: Option<SystemTime>,
    /// Whether the operator has switched it off.
    pub disabled: bool,
}

impl KeyRecord {
    /// A record without label, dates or masked key.
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

    /// Whether the key is neither switched off nor expired at this instant.
    pub(crate) fn is_usable(&self, at: SystemTime) -> bool {
        !self.disabled && !self.is_expired(at)
    }

    /// Whether the key has expired at this instant.
    pub fn is_expired(&self, at: SystemTime) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= at)
    }
}

impl KeyId {
    /// An id of this text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The id's text.
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
    /// The largest limit.
    pub const MAX: u32 = 1_000_000_000;

    /// A limit of `requests` a day, 0 for none.
    pub fn new(requests: u32) -> Result<Self, InvalidDailyLimit> {
        if requests <= Self::MAX { Ok(Self(requests)) } else { Err(InvalidDailyLimit) }
    }

    /// The number as stored and shown: 0 for unlimited.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The limit, or `None` if there is none.
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
