//! Changes to one key.

use std::time::{Duration, SystemTime};

use super::{Actor, KeyRef, KeySummary, KeyVersion};
use crate::key::{DailyLimit, KeyHash, SecretKey};

/// A change that somebody makes to one key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyEdit {
    /// Which key.
    pub key: KeyRef,
    /// What.
    pub change: KeyChange,
    /// Only if the key is in one of these states; `None` for any.
    pub if_match: Option<Vec<KeyVersion>>,
    /// Who.
    pub by: Actor,
}

impl KeyEdit {
    /// Makes this change, in whatever state the key is.
    pub fn new(key: KeyRef, change: KeyChange, by: Actor) -> Self {
        Self { key, change, if_match: None, by }
    }

    /// Makes it only if the key is in one of these states.
    #[must_use]
    pub fn if_match(self, versions: Option<Vec<KeyVersion>>) -> Self {
        Self { if_match: versions, ..self }
    }

    /// Whether the change may be made to the key as it is.
    pub(crate) fn applies_to(&self, key: &KeySummary) -> bool {
        self.if_match.as_ref().is_none_or(|versions| versions.contains(&key.version()))
    }
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeOutcome {
    /// It was made. The key after it; of a deletion, before it.
    Done(Box<KeySummary>),
    /// There is no such key.
    UnknownKey,
    /// The key is in another state than those that were named.
    VersionMismatch,
}

impl ChangeOutcome {
    /// The key, if the change was made.
    pub fn done(self) -> Option<KeySummary> {
        match self {
            Self::Done(key) => Some(*key),
            Self::UnknownKey | Self::VersionMismatch => None,
        }
    }
}

/// A change to one key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeyChange {
    /// New values for some fields.
    Update(KeyPatch),
    /// A new secret for the same record and the same day's count.
    Rotate(Rotation),
    /// Today's used units go back to 0.
    ResetUsage,
    /// The key stops; its usage history stays.
    Delete,
}

impl KeyChange {
    /// The change's name in the audit trail.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Update(_) => "key.update",
            Self::Rotate(_) => "key.rotate",
            Self::ResetUsage => "key.reset_usage",
            Self::Delete => "key.delete",
        }
    }
}

/// New values for some fields of a record; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyPatch {
    /// The new label.
    pub label: Option<String>,
    /// The new limit.
    pub daily_limit: Option<DailyLimit>,
    /// The new expiry; `Some(None)` takes it away.
    pub expires_at: Option<Option<SystemTime>>,
    /// Switched off or on.
    pub disabled: Option<bool>,
}

/// A new secret for a record.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The new key.
    pub secret: SecretKey,
    /// How long the old one still works.
    pub grace: Duration,
}

impl Rotation {
    /// Until when the old key still works after a rotation at `now`; `None` if it stops at once.
    pub(crate) fn old_until(&self, now: SystemTime) -> Option<SystemTime> {
        let grace = self.grace.min(Duration::from_secs(u32::MAX.into()));
        (!grace.is_zero()).then(|| now + grace)
    }

    /// The hash of the new key.
    pub fn hash(&self) -> KeyHash {
        self.secret.hash()
    }
}
