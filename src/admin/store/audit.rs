//! The audit trail.

use std::{net::IpAddr, time::SystemTime};

use crate::key::KeyId;

/// Declares a constant for each action, and the list of them.
macro_rules! actions {
    ($($(#[$attribute:meta])* $name:ident = $action:literal;)*) => {
        $($(#[$attribute])* pub(crate) const $name: &str = $action;)*

        /// All actions.
        #[cfg(all(test, feature = "admin"))]
        pub(crate) const ALL: &[&str] = &[$($action),*];
    };
}

/// What entries of the audit trail record.
pub(crate) mod action {
    actions! {
        KEY_CREATED = "key.create";
        KEY_UPDATED = "key.update";
        KEY_ROTATED = "key.rotate";
        KEY_RESET = "key.reset_usage";
        KEY_DELETED = "key.delete";
        KEY_IMPORTED = "key.import";
        CLAIM_OFFERED = "key.claim.offer";
        CLAIM_OPENED = "key.claim.open";
        #[cfg(feature = "admin")]
        ADMIN_READ = "admin.read";
        #[cfg(feature = "admin")]
        ADMIN_REJECTED = "admin.refused";
        #[cfg(feature = "admin")]
        STORE_BACKUP = "store.backup";
    }
}

/// The originator of a change, as recorded in the audit trail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// Short fingerprint of the admin token, never the token itself.
    pub token_id: String,
    /// Client address of the request.
    pub ip: Option<IpAddr>,
}

/// Event that does not change a key, to be recorded in the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditNote {
    /// Name of the event, for example `store.backup`.
    pub action: &'static str,
    /// Key that the event concerns, if any.
    pub key_id: Option<KeyId>,
    /// Further details as a JSON object. Must not contain a secret.
    pub detail: String,
}

impl AuditNote {
    /// Creates a note without a key or details.
    pub fn new(action: &'static str) -> Self {
        Self { action, key_id: None, detail: "{}".to_owned() }
    }
}

/// Selection of audit entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Maximum number of entries.
    pub limit: usize,
    /// Only entries before the one with this number.
    pub before: Option<u64>,
    /// Only entries of this key.
    pub key_id: Option<KeyId>,
    /// Only actions that start with this prefix.
    pub action: Option<String>,
    /// Only entries of the admin token with this fingerprint.
    pub token_id: Option<String>,
    /// Only entries from this time on.
    pub from: Option<SystemTime>,
    /// Only entries before this time.
    pub until: Option<SystemTime>,
}

impl AuditQuery {
    /// Whether the query selects this entry, regardless of its limit.
    #[cfg(feature = "memory")]
    pub(crate) fn matches(&self, entry: &AuditEntry) -> bool {
        self.before.is_none_or(|before| entry.number < before)
            && self.key_id.as_ref().is_none_or(|id| entry.key_id.as_ref() == Some(id))
            && self.action.as_ref().is_none_or(|action| entry.action.starts_with(action))
            && self.token_id.as_ref().is_none_or(|id| entry.actor.token_id == *id)
            && self.from.is_none_or(|from| from <= entry.at)
            && self.until.is_none_or(|until| entry.at < until)
    }
}

/// Entry of the audit trail. Contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Sequence number. Later entries have larger numbers.
    pub number: u64,
    /// Time of the change.
    pub at: SystemTime,
    /// Originator of the change.
    pub actor: Actor,
    /// Name of the change or event, for example `key.create`.
    pub action: String,
    /// Key that the entry concerns, if any.
    pub key_id: Option<KeyId>,
    /// Present label of the key, or its last label if the key was deleted.
    pub label: Option<String>,
    /// Changed fields as a JSON object.
    pub detail: String,
}
