//! Single requests, where they are kept.

use std::{net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    call::{Asked, Json},
    input::{KeyName, Only, PageLimit, Place, RequestId},
    refusal::Refusal,
    rejections::RejectedRequest,
    shared::Shared,
    view::Instant,
};
use crate::{
    error::Reject,
    key::KeyId,
    store::{AdminStore, Outcome, RequestQuery, RequestRow, Tokens},
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
    /// Only those of this id. Of these, also the last 1000 that were rejected and whose key is not known.
    request_id: Option<RequestId>,
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
    /// `null` of one whose key is not known.
    number: Option<u64>,
    /// Whose it was; `null` if that is not known.
    id: Option<KeyId>,
    /// The beginning of a credential that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The client's address, told of a request whose key is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_addr: Option<IpAddr>,
    /// What its answer said as `x-request-id`.
    request_id: Option<String>,
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
    /// `null` of one whose key is not known.
    duration_ms: Option<f64>,
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
        let RequestsWanted { limit, before, key, failed, request_id } = asked.query;
        let limit = PageLimit::or_default(limit);
        let mut query = RequestQuery::latest(limit);
        query.before = before.map(|Place(before)| before);
        query.failed_only = failed.is_some_and(|Only(failed)| failed);
        if let Some(KeyName(key)) = key {
            query.key_id = Some(self.key_id(key).await?);
        }
        let mut requests = Vec::new();
        if let Some(RequestId(id)) = &request_id
            && query.key_id.is_none()
            && query.before.is_none()
        {
            let rejections = self.rejections.find(id).into_iter().take(limit);
            requests.extend(rejections.map(Request::from));
        }
        query.request_id = request_id.map(|RequestId(id)| id);
        let rows = self.store.requests(query).await?;
        let next = rows.last().map(|row| row.number).filter(|_| rows.len() == limit);
        requests.extend(rows.into_iter().map(Request::from));
        Ok(Json(Requests { requests, next, retention_days: self.retention_days }))
    }
}

impl From<RequestRow> for Request {
    fn from(row: RequestRow) -> Self {
        let millis = |time: std::time::Duration| time.as_micros() as f64 / 1000.0;
        Self {
            number: Some(row.number),
            id: Some(row.key_id),
            key: None,
            client_addr: None,
            request_id: row.request_id,
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
            duration_ms: Some(millis(row.duration)),
        }
    }
}

impl From<RejectedRequest> for Request {
    fn from(request: RejectedRequest) -> Self {
        let RejectedRequest { at, request_id, method, path, status, code, key, client_addr } =
            request;
        Self {
            number: None,
            id: None,
            key,
            client_addr,
            request_id: Some(request_id),
            at: Instant(at),
            method,
            path,
            status: Some(status),
            outcome: Outcome::Rejected(code).as_str().to_owned(),
            code: Some(code.to_owned()),
            model_asked: None,
            model: None,
            units: 0,
            refunded: false,
            tokens: None,
            bytes_in: 0,
            bytes_out: 0,
            time_to_head_ms: None,
            time_to_first_byte_ms: None,
            duration_ms: None,
        }
    }
}

impl From<Tokens> for TokensTold {
    fn from(tokens: Tokens) -> Self {
        let Tokens { prompt, completion, total, cached, reasoning, .. } = tokens;
        Self { prompt, completion, total, cached, reasoning }
    }
}
