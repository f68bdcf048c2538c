//! Changes to one key.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use crate::{
    admin::store::{Actor, KeyRef, KeySummary, action},
    key::{KeyHash, KeyPatch, KeyRecord, KeyVersion, SecretKey},
};

/// Conditional change to one key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyEdit {
    /// Key to change.
    pub key: KeyRef,
    /// Change to make.
    pub change: KeyChange,
    /// Versions of the key to which the change applies, `None` for any version (compare `If-Match`,
    /// RFC 9110, section 13.1.1).
    pub if_match: Option<Vec<KeyVersion>>,
    /// Originator of the change.
    pub by: Actor,
}

impl KeyEdit {
    /// Creates a change to any version of the key.
    pub fn new(key: KeyRef, change: KeyChange, by: Actor) -> Self {
        Self { key, change, if_match: None, by }
    }

    /// Makes the change only if the key has one of these versions.
    #[must_use]
    pub fn if_match(self, versions: Option<Vec<KeyVersion>>) -> Self {
        Self { if_match: versions, ..self }
    }

    /// Whether the change applies to the present version of the key.
    pub fn applies_to(&self, key: &KeySummary) -> bool {
        self.if_match.as_ref().is_none_or(|versions| versions.contains(&key.version()))
    }
}

/// Outcome of a change to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeOutcome {
    /// The change was made. Contains the key after the change, or before it if it is a deletion.
    Done(Box<KeySummary>),
    /// The key is unknown.
    UnknownKey,
    /// The key has none of the versions in [`KeyEdit::if_match`].
    VersionMismatch,
}

/// Change to one key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeyChange {
    /// Sets some fields of the record.
    Update(KeyPatch),
    /// Replaces the secret and keeps the record and the units used today.
    Rotate(Rotation),
    /// Resets the units used today to 0.
    ResetUsage,
    /// Deletes the key and keeps its usage history.
    Delete,
}

impl KeyChange {
    /// Returns the name of the change in the audit trail.
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::Update(_) => action::KEY_UPDATED,
            Self::Rotate(_) => action::KEY_ROTATED,
            Self::ResetUsage => action::KEY_RESET,
            Self::Delete => action::KEY_DELETED,
        }
    }

    /// Whether the change withdraws the key's unopened claims, because the key gets another secret or is not
    /// usable before or after the change.
    pub fn withdraws_claims(&self, before: &KeyRecord, after: &KeyRecord, now: SystemTime) -> bool {
        match self {
            Self::Rotate(_) | Self::Delete => true,
            Self::Update(_) => !before.is_usable(now) || !after.is_usable(now),
            Self::ResetUsage => false,
        }
    }

    /// Returns the changed fields, each as `{"before":…,"after":…}`, as a JSON object.
    pub(super) fn audit_detail(&self, before: &KeySummary, after: &KeySummary) -> String {
        match self {
            Self::Delete => return before.record.audit_detail(),
            Self::ResetUsage => {
                return json!({"used": {"before": before.used_today, "after": 0}}).to_string();
            }
            Self::Update(_) | Self::Rotate(_) => {}
        }
        let mut changed = Map::new();
        let before = before.record.audit_fields();
        for (field, after) in after.record.audit_fields() {
            if before[&field] != after {
                changed.insert(field.clone(), json!({"before": before[&field], "after": after}));
            }
        }
        Value::Object(changed).to_string()
    }
}

/// Replacement of a key's secret.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rotation {
    /// Secret that replaces the current one.
    pub secret: SecretKey,
    /// Time for which the old secret remains valid.
    pub grace: Duration,
}

impl Rotation {
    /// Creates a rotation to `secret`. The old secret remains valid for `grace`, of whole seconds up to
    /// 4,294,967,295.
    pub fn new(secret: SecretKey, grace: Duration) -> Self {
        Self { secret, grace }
    }

    /// Returns the time until which the old secret is valid after a rotation at `now`, or `None` if
    /// it is no longer valid.
    pub fn old_until(&self, now: SystemTime) -> Option<SystemTime> {
        let grace = self.grace.min(Duration::from_secs(u32::MAX.into()));
        (!grace.is_zero()).then(|| now + grace)
    }

    /// Returns the hash of the new secret.
    pub fn hash(&self) -> KeyHash {
        self.secret.hash()
    }
}
