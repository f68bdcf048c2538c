//! Single requests, where they are kept.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    call::{Asked, Json},
    input::{KeyName, Only, PageLimit, Place},
    refusal::Refusal,
    shared::Shared,
    view::Instant,
};
use crate::{
    error::Reject,
    key::KeyId,
    store::{AdminStore, RequestQuery, RequestRow, Tokens},
};

/// Which requests are asked for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestsWanted {
    /// How many; 100 if absent.
    limit: Option<PageLimit>,
    /// The `next` of the page before.
    before: Option<Place>,
    /// Only those of this key: its id, or the whole key.
    key: Option<KeyName>,
    /// `true`: only those that did not succeed.
    failed: Option<Only>,
}

/// Single requests, the latest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct Requests {
    requests: Vec<Request>,
    /// What `before` is to be for the next page; `null` on the last one.
    next: Option<u64>,
    /// For how many days they are kept; 0 if they are not.
    retention_days: u32,
}

/// One request that has ended.
#[derive(Serialize, JsonSchema)]
struct Request {
    number: u64,
    /// Whose it was.
    id: KeyId,
    at: Instant,
    method: String,
    path: String,
    status: Option<u16>,
    outcome: String,
    /// Why it was refused, or what was wrong.
    code: Option<String>,
    model_asked: Option<String>,
    model: Option<String>,
    units: u32,
    refunded: bool,
    /// `null` if the answer told none.
    tokens: Option<TokensTold>,
    bytes_in: u64,
    bytes_out: u64,
    time_to_head_ms: Option<f64>,
    time_to_first_byte_ms: Option<f64>,
    duration_ms: f64,
}

/// The tokens that an answer told.
#[derive(Serialize, JsonSchema)]
struct TokensTold {
    prompt: u64,
    completion: u64,
    total: u64,
    cached: Option<u64>,
    reasoning: Option<u64>,
}

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    pub(super) async fn requests(
        self: Arc<Self>,
        asked: Asked<(), RequestsWanted>,
    ) -> Result<Json<Requests>, Refusal> {
        let RequestsWanted { limit, before, key, failed } = asked.query;
        let limit = PageLimit::or_default(limit);
        let mut query = RequestQuery::latest(limit);
        query.before = before.map(|Place(before)| before);
        query.failed_only = failed.is_some_and(|Only(failed)| failed);
        if let Some(KeyName(key)) = key {
            query.key_id = Some(self.key_id(key).await?);
        }
        let rows = self.store.requests(query).await?;
        let next = rows.last().map(|row| row.number).filter(|_| rows.len() == limit);
        let requests = rows.into_iter().map(Request::from).collect();
        Ok(Json(Requests { requests, next, retention_days: self.retention_days }))
    }
}

impl From<RequestRow> for Request {
    fn from(row: RequestRow) -> Self {
        let millis = |time: std::time::Duration| time.as_micros() as f64 / 1000.0;
        Self {
            number: row.number,
            id: row.key_id,
            at: Instant(row.at),
            method: row.method,
            path: row.path,
            status: row.status,
            outcome: row.outcome,
            code: row.code,
            model_asked: row.model_asked,
            model: row.model,
            units: row.units,
            refunded: row.refunded,
            tokens: row.tokens.map(TokensTold::from),
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            time_to_head_ms: row.time_to_head.map(millis),
            time_to_first_byte_ms: row.time_to_first_byte.map(millis),
            duration_ms: millis(row.duration),
        }
    }
}

impl From<Tokens> for TokensTold {
    fn from(tokens: Tokens) -> Self {
        let Tokens { prompt, completion, total, cached, reasoning, .. } = tokens;
        Self { prompt, completion, total, cached, reasoning }
    }
}
