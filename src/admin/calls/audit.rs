//! The audit trail.

use std::{net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    admin::{
        http::{
            call::{Call, CallRequest, Json},
            error::AdminError,
            input::{DayParam, KeyRefField, NamePrefix, PageLimit, RowNumber},
            json::Timestamp,
            schema,
        },
        shared::Shared,
        store::{AdminStore, AuditEntry, AuditQuery, KeyRef},
    },
    key::KeyId,
};

/// Filters of the audit trail.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditTrailQuery {
    /// Maximum number of entries, 100 if absent.
    limit: Option<PageLimit>,
    /// `next` of the previous page.
    before: Option<RowNumber>,
    /// Only entries about this key, given by id or by the whole key.
    key: Option<KeyRefField>,
    /// Only actions with this prefix, such as `key.` or `key.delete`.
    #[schemars(example = &"key.delete")]
    action: Option<NamePrefix>,
    /// Only actions by the holder of this token, given by `token_id` or its beginning.
    token_id: Option<NamePrefix>,
    /// The first day.
    from: Option<DayParam>,
    /// The last day.
    to: Option<DayParam>,
}

/// Entries of the audit trail, newest first.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Trail {
    entries: Vec<Entry>,
    /// Value of `before` for the next page, `null` on the last one.
    next: Option<u64>,
}

/// One entry of the audit trail.
#[derive(Serialize, JsonSchema)]
struct Entry {
    number: u64,
    at: Timestamp,
    /// The beginning of the token's SHA-256, empty if the token was not valid.
    token_id: String,
    ip: Option<IpAddr>,
    #[schemars(example = &"key.update")]
    action: String,
    #[schemars(with = "Option<schema::KeyId>")]
    key_id: Option<KeyId>,
    /// The key's current label, or its last one if the key was deleted.
    label: Option<String>,
    /// The changed fields, each with `before` and `after`, or all fields of a key that was issued or
    /// deleted.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    detail: Option<Box<RawValue>>,
}

impl From<AuditEntry> for Entry {
    fn from(entry: AuditEntry) -> Self {
        Self {
            number: entry.number,
            at: Timestamp(entry.at),
            token_id: entry.actor.token_id,
            ip: entry.actor.ip,
            action: entry.action,
            key_id: entry.key_id,
            label: entry.label,
            detail: RawValue::from_string(entry.detail).ok(),
        }
    }
}

impl<S: AdminStore> Shared<S> {
    pub(super) fn audit_calls() -> Vec<Call<Self>> {
        vec![Call::new("GET /audit", "getAudit", "The audit trail", Self::audit)]
    }

    async fn audit(
        self: Arc<Self>,
        request: CallRequest<(), AuditTrailQuery>,
    ) -> Result<Json<Trail>, AdminError> {
        let AuditTrailQuery { limit, before, key, action, token_id, from, to } = request.query;
        let limit = PageLimit::or_default(limit);
        let key_id = match key {
            None => None,
            Some(KeyRefField(key)) => Some(self.key_id(key).await?),
        };
        let window = |DayParam(day)| self.process.calendar.window_of(day);
        let query = AuditQuery {
            limit,
            before: before.map(|RowNumber(number)| number),
            key_id,
            action: action.map(|NamePrefix(action)| action),
            token_id: token_id.map(|NamePrefix(id)| id),
            from: from.map(|day| window(day).start),
            until: to.map(|day| window(day).end),
        };
        let entries = self.store.audit(query).await?;
        let is_full = entries.len() == limit;
        let next = entries.last().map(|entry| entry.number).filter(|_| is_full);
        Ok(Json(Trail { entries: entries.into_iter().map(Entry::from).collect(), next }))
    }

    /// Resolves the id of a key. A deleted key is only known by its id.
    pub(crate) async fn key_id(&self, key: KeyRef) -> Result<KeyId, AdminError> {
        let id = key.id();
        let summary = self.store.get(key).await?;
        Ok(summary.map_or(id, |summary| summary.record.id))
    }
}
