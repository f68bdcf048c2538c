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
};
use crate::{
    error::Reject,
    store::{AdminStore, RequestOutcome, RequestQuery, RequestRecord, UsageEvent},
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
    /// `null` for a request whose key is not known.
    number: Option<u64>,
    #[serde(flatten)]
    event: UsageEvent,
    /// The beginning of a credential that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The client's address, for a request whose key is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_addr: Option<IpAddr>,
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

impl From<RequestRecord> for Request {
    fn from(record: RequestRecord) -> Self {
        let RequestRecord { number, event } = record;
        Self { number: Some(number), event, key: None, client_addr: None }
    }
}

impl From<RejectedRequest> for Request {
    fn from(request: RejectedRequest) -> Self {
        let RejectedRequest { at, request_id, method, path, status, code, key, client_addr } =
            request;
        let mut event = UsageEvent::new(at);
        event.request_id = Some(request_id);
        event.method = method;
        event.path = path;
        event.status = Some(status);
        event.outcome = RequestOutcome::Rejected;
        event.code = Some(code);
        Self { number: None, event, key, client_addr }
    }
}
