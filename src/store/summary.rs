//! Summaries, states and versions of keys.

use std::{fmt, str::FromStr, time::SystemTime};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::ClaimSummary;
use crate::key::{KeyHash, KeyRecord, hex};

/// Record of a key together with its usage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySummary {
    /// Record of the key.
    pub record: KeyRecord,
    /// Hash of the key. `None` if the key was typed into a table in clear and has not been hashed
    /// yet.
    pub hash: Option<KeyHash>,
    /// Units used today.
    pub used_today: u64,
    /// Units used on all days.
    pub total_used: u64,
    /// Time of the last admitted request.
    pub last_used_at: Option<SystemTime>,
    /// Latest claim, unless it was withdrawn.
    pub claim: Option<ClaimSummary>,
}

impl KeySummary {
    /// Returns the version of the record, which does not depend on usage.
    pub fn version(&self) -> KeyVersion {
        KeyVersion::of(&self.record, self.hash)
    }

    /// Returns the state of the key.
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

    /// Returns the number of units left today, or `None` if there is no limit.
    pub fn remaining(&self) -> Option<u64> {
        self.record.daily_limit.limited().map(|limit| limit.saturating_sub(self.used_today))
    }
}

/// State of a key. If several apply, the first of disabled, expired and exhausted is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// Requests with the key are admitted.
    Active,
    /// The key is disabled.
    Disabled,
    /// The key has expired.
    Expired,
    /// The key has no units left today.
    Exhausted,
}

impl KeyState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Active, Self::Disabled, Self::Expired, Self::Exhausted];

    /// Returns the stable name of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Exhausted => "exhausted",
        }
    }
}

/// Version of a key's record, used as an entity tag (RFC 9110, section 8.8.3).
///
/// It is a hash of the record's fields, so that it also changes when a table is edited by hand. Its
/// text form has 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyVersion([u8; 16]);

impl KeyVersion {
    /// Computes the version of the record of a key with this hash.
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

/// Error for a text that is not a [`KeyVersion`].
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
