use std::{net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    call::{Asked, Json},
    input::{KeyName, OnDay, PageLimit, Place, Word},
    refusal::Refusal,
    shared::Shared,
    view::Instant,
};
use crate::{
    error::Reject,
    key::KeyId,
    store::{AdminStore, AuditEntry, AuditQuery, KeyRef},
};

/// Which entries are asked for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EntriesWanted {
    /// How many entries; 100 if absent.
    limit: Option<PageLimit>,
    /// The `next` of the page before.
    before: Option<Place>,
    /// Only entries of this key, by id or by its whole text.
    key: Option<KeyName>,
    /// Only actions that begin so, such as `key.` or `key.delete`.
    #[schemars(example = &"key.delete")]
    action: Option<Word>,
    /// Only what the holder of this token has done: the beginning of its SHA-256, as entries show it.
    token_id: Option<Word>,
    /// Only from this day on.
    from: Option<OnDay>,
    /// Only up to this day.
    to: Option<OnDay>,
}

/// Entries of the audit trail, newest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct Trail {
    entries: Vec<Entry>,
    /// What `before` is to be for the next page; `null` on the last one.
    next: Option<u64>,
}

/// One entry of the audit trail.
#[derive(Serialize, JsonSchema)]
struct Entry {
    number: u64,
    at: Instant,
    /// The beginning of the token's SHA-256; empty where the token was wrong.
    token_id: String,
    ip: Option<IpAddr>,
    #[schemars(example = &"key.update")]
    action: String,
    key_id: Option<KeyId>,
    /// What the key is called now, or was when it was deleted.
    label: Option<String>,
    /// What changed: each field with `before` and `after`, or the fields of a key that was issued
    /// or deleted.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    detail: Option<Box<RawValue>>,
}

impl From<AuditEntry> for Entry {
    fn from(entry: AuditEntry) -> Self {
        Self {
            number: entry.number,
            at: Instant(entry.at),
            token_id: entry.actor.token_id,
            ip: entry.actor.ip,
            action: entry.action,
            key_id: entry.key_id,
            label: entry.label,
            detail: RawValue::from_string(entry.detail).ok(),
        }
    }
}

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    pub(super) async fn audit(
        self: Arc<Self>,
        asked: Asked<(), EntriesWanted>,
    ) -> Result<Json<Trail>, Refusal> {
        let EntriesWanted { limit, before, key, action, token_id, from, to } = asked.query;
        let limit = PageLimit::or_default(limit);
        let key_id = match key {
            None => None,
            Some(KeyName(key)) => Some(self.key_id(key).await?),
        };
        let window = |OnDay(day)| self.facts.calendar.window_of(day);
        let query = AuditQuery {
            limit,
            before: before.map(|Place(before)| before),
            key_id,
            action: action.map(|Word(action)| action),
            token_id: token_id.map(|Word(id)| id),
            from: from.map(|day| window(day).start),
            until: to.map(|day| window(day).end),
        };
        let entries = self.store.audit(query).await?;
        let full = entries.len() == limit;
        let next = entries.last().map(|entry| entry.number).filter(|_| full);
        Ok(Json(Trail { entries: entries.into_iter().map(Entry::from).collect(), next }))
    }

    /// The id of a key that may have been deleted, of which only the id is known.
    pub(super) async fn key_id(&self, key: KeyRef) -> Result<KeyId, Refusal> {
        let id = key.id();
        let found = self.store.get(key).await?;
        Ok(found.map_or(id, |found| found.record.id))
    }
}
