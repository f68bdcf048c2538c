//! A key as lists and reports show it.

use std::{fmt, str::FromStr, time::SystemTime};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::ClaimSummary;
use crate::key::{KeyHash, KeyRecord, hex};

/// A record with its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySummary {
    /// The record.
    pub record: KeyRecord,
    /// The key's hash; `None` while a key that was typed in waits to be hashed.
    pub hash: Option<KeyHash>,
    /// Units used today.
    pub used_today: u64,
    /// Units used on all days.
    pub total_used: u64,
    /// The last admitted request.
    pub last_used_at: Option<SystemTime>,
    /// The latest claim that was not withdrawn.
    pub claim: Option<ClaimSummary>,
}

impl KeySummary {
    /// Names the record's present state. The figures are no part of it.
    pub fn version(&self) -> KeyVersion {
        KeyVersion::of(&self.record, self.hash)
    }

    /// Whether the key works, and if not, why.
    pub fn state(&self, now: SystemTime) -> KeyState {
        if self.record.disabled {
            KeyState::Disabled
        } else if self.record.is_expired(now) {
            KeyState::Expired
        } else if self.remaining() == Some(0) {
            KeyState::Exhausted
        } else {
            KeyState::Active
        }
    }

    /// Units left today, or `None` if there is no limit.
    pub fn remaining(&self) -> Option<u64> {
        self.record.daily_limit.limited().map(|limit| limit.saturating_sub(self.used_today))
    }
}

/// Whether a key works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// It works.
    Active,
    /// Its operator has switched it off.
    Disabled,
    /// Its time is over.
    Expired,
    /// Nothing is left of its day.
    Exhausted,
}

impl KeyState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Active, Self::Disabled, Self::Expired, Self::Exhausted];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Exhausted => "exhausted",
        }
    }
}

/// Names one state of a key's record, made of what the record holds, so that edits of a table by hand
/// change it too. An entity tag (RFC 9110, section 8.8.3) without its quotes: 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyVersion([u8; 16]);

impl KeyVersion {
    /// The version of this record of a key with this hash.
    pub(crate) fn of(record: &KeyRecord, key: Option<KeyHash>) -> Self {
        let time = record.expires_at.map(|at| at.duration_since(SystemTime::UNIX_EPOCH));
        let mut hash = Sha256::new();
        for text in [record.id.as_str(), &record.label] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.update(key.map_or([0; 32], |hash| *hash.as_bytes()));
        hash.update(record.daily_limit.get().to_le_bytes());
        hash.update(
            time.and_then(Result::ok).map_or([0xff; 16], |at| at.as_millis().to_le_bytes()),
        );
        hash.update([u8::from(record.disabled)]);
        let digest: [u8; 32] = hash.finalize().into();
        let (version, _) = digest.split_at(16);
        KeyVersion(version.try_into().unwrap_or_default())
    }
}

/// The text is no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKeyVersion;

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl Serialize for KeyVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for KeyState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
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
        let plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = plain.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(|number| Self(number.to_be_bytes())).ok_or(InvalidKeyVersion)
    }
}

impl fmt::Display for InvalidKeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a version is 32 hexadecimal digits")
    }
}

impl std::error::Error for InvalidKeyVersion {}
