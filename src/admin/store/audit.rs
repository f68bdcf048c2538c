//! The audit trail.

use std::{borrow::Cow, net::IpAddr, time::SystemTime};

use serde_json::json;

use super::{ClaimOffer, KeyChange, KeySummary, NodeSummary};
use crate::{
    clock::rfc3339,
    key::{KeyId, KeyRecord},
};

/// Declares a constant for each action, and the list of them.
macro_rules! actions {
    ($($(#[$attribute:meta])* $name:ident = $action:literal;)*) => {
        $($(#[$attribute])* pub(crate) const $name: &str = $action;)*

        /// All actions.
        #[cfg(test)]
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
        ADMIN_READ = "admin.read";
        ADMIN_REJECTED = "admin.refused";
        STORE_BACKUP = "store.backup";
        NODE_RELEASED = "node.release";
    }
}

/// The originator of a change, as recorded in the audit trail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Actor {
    /// Short fingerprint of the admin token, never the token itself.
    pub token_id: String,
    /// Client address of the request.
    pub ip: Option<IpAddr>,
}

impl Actor {
    /// Creates an originator.
    pub fn new(token_id: impl Into<String>, ip: Option<IpAddr>) -> Self {
        Self { token_id: token_id.into(), ip }
    }
}

/// What an entry of the audit trail says: a change of a key, or another event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditNote {
    /// Name of the event, for example `store.backup`.
    pub action: Cow<'static, str>,
    /// Key that the event concerns, if any.
    pub key_id: Option<KeyId>,
    /// Further details as a JSON object. Must not contain a secret.
    pub detail: String,
}

impl AuditNote {
    /// Creates a note without a key or details.
    pub fn new(action: impl Into<Cow<'static, str>>) -> Self {
        Self { action: action.into(), key_id: None, detail: "{}".to_owned() }
    }

    fn of(action: &'static str, key_id: &KeyId, detail: String) -> Self {
        Self { action: action.into(), key_id: Some(key_id.clone()), detail }
    }

    /// Creates the note of an issued key.
    pub fn created(key: &KeyRecord) -> Self {
        Self::of(action::KEY_CREATED, &key.id, key.audit_detail())
    }

    /// Creates the note of an imported key.
    pub fn imported(key: &KeyRecord) -> Self {
        Self::of(action::KEY_IMPORTED, &key.id, key.audit_detail())
    }

    /// Creates the note of a change, with the fields that differ.
    pub fn changed(change: &KeyChange, before: &KeySummary, after: &KeySummary) -> Self {
        Self::of(change.action(), &before.record.id, change.audit_detail(before, after))
    }

    /// Creates the note of a new claim for the key with this id.
    pub fn claim_offered(key_id: &KeyId, offer: &ClaimOffer) -> Self {
        let detail = json!({"claim_expires_at": rfc3339(offer.expires_at)}).to_string();
        Self::of(action::CLAIM_OFFERED, key_id, detail)
    }

    /// Creates the note of a released node, with what it held.
    pub fn node_released(node: &NodeSummary) -> Self {
        let detail = json!({
            "node": node.number,
            "id": node.id,
            "seen_at": rfc3339(node.seen_at),
            "leased_units": node.leased_units,
            "leased_keys": node.leased_keys,
            "open_requests": node.open_requests,
        });
        Self { detail: detail.to_string(), ..Self::new(action::NODE_RELEASED) }
    }

    /// Creates the note of an opened claim, which has made this change.
    pub fn claim_opened(change: &KeyChange, before: &KeySummary, after: &KeySummary) -> Self {
        let detail = change.audit_detail(before, after);
        Self::of(action::CLAIM_OPENED, &before.record.id, detail)
    }
}

/// Selection of audit entries.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    /// Creates a query for the latest `limit` entries. Set the other fields afterwards.
    pub fn latest(limit: usize) -> Self {
        Self {
            limit,
            before: None,
            key_id: None,
            action: None,
            token_id: None,
            from: None,
            until: None,
        }
    }

    /// Whether the query selects this entry, regardless of its limit.
    pub fn matches(&self, entry: &AuditEntry) -> bool {
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
#[non_exhaustive]
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

impl AuditEntry {
    /// Creates the entry of a note, without the key's label.
    pub fn new(number: u64, at: SystemTime, actor: Actor, note: AuditNote) -> Self {
        let AuditNote { action, key_id, detail } = note;
        Self { number, at, actor, action: action.into_owned(), key_id, label: None, detail }
    }
}
