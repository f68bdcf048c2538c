use std::net::IpAddr;

use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    query::Params,
    refusal::Refusal,
    service::{Answer, Shared},
    view::{Instant, answer},
};
use crate::{
    key::KeyId,
    store::{AdminStore, AuditEntry, AuditQuery, KeyRef},
};

#[derive(Serialize)]
struct Trail<'a> {
    entries: Vec<Entry<'a>>,
    next: Option<u64>,
}

#[derive(Serialize)]
struct Entry<'a> {
    number: u64,
    at: Instant,
    token_id: &'a str,
    ip: Option<IpAddr>,
    action: &'a str,
    key_id: Option<&'a KeyId>,
    detail: Option<&'a RawValue>,
}

impl<'a> From<&'a AuditEntry> for Entry<'a> {
    fn from(entry: &'a AuditEntry) -> Self {
        Self {
            number: entry.number,
            at: Instant(entry.at),
            token_id: &entry.actor.token_id,
            ip: entry.actor.ip,
            action: &entry.action,
            key_id: entry.key_id.as_ref(),
            detail: serde_json::from_str(&entry.detail).ok(),
        }
    }
}

impl<S: AdminStore, R> Shared<S, R> {
    pub(super) async fn audit(&self, mut params: Params) -> Answer {
        let limit = params.limit()?;
        let before = params.read("before", "the `next` of the page before")?;
        let key = params.key();
        params.finish()?;
        let key_id = match key {
            None => None,
            Some(key) => Some(self.key_id(key).await?),
        };
        let query = AuditQuery { limit, before, key_id };
        let entries = self.store.audit(query).await?;
        let full = entries.len() == limit;
        let next = entries.last().map(|entry| entry.number).filter(|_| full);
        let entries = entries.iter().map(Entry::from).collect();
        Ok(answer(StatusCode::OK, &Trail { entries, next }))
    }

    /// The id of a key that may have been deleted, of which only the id is known.
    pub(super) async fn key_id(&self, key: KeyRef) -> Result<KeyId, Refusal> {
        let id = key.id();
        let found = self.store.get(key).await?;
        Ok(found.map_or(id, |found| found.record.id))
    }
}
