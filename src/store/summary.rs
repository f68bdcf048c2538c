//! Summaries and states of keys.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::ClaimSummary;
use crate::key::{KeyHash, KeyRecord, KeyVersion};

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

impl Serialize for KeyState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
