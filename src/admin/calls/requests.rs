//! Single requests.

use std::{net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    admin::{
        http::{
            call::{Call, CallRequest, Json},
            error::AdminError,
            input::{BoolParam, KeyRefField, PageLimit, RequestId, RowNumber},
            schema,
        },
        rejections::RejectionEntry,
        shared::Shared,
        store::AdminStore,
    },
    store::{
        RequestOutcome, UsageEvent,
        report::{RequestQuery, RequestRecord},
    },
};

/// Filters of single requests.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestsQuery {
    /// Maximum number of requests, 100 if absent.
    limit: Option<PageLimit>,
    /// `next` of the previous page.
    before: Option<RowNumber>,
    /// Only requests of this key, given by id or by the whole key.
    key: Option<KeyRefField>,
    /// `true`: only requests that did not succeed.
    failed: Option<BoolParam>,
    /// Only requests with this id, including the last 1000 rejected ones without a known key.
    request_id: Option<RequestId>,
}

/// Single requests, latest first.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Requests {
    requests: Vec<Request>,
    /// Value of `before` for the next page, `null` on the last one.
    next: Option<u64>,
    /// Number of days for which requests are kept; 0 if they are not kept.
    retention_days: u32,
}

/// One request that has ended.
#[derive(Serialize, JsonSchema)]
struct Request {
    /// `null` if the key is not known.
    number: Option<u64>,
    #[serde(flatten)]
    #[schemars(with = "schema::UsageEvent")]
    event: UsageEvent,
    /// The beginning of an unknown credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The client's address; only present if the key is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_addr: Option<IpAddr>,
}

impl<S: AdminStore> Shared<S> {
    pub(super) fn request_calls() -> Vec<Call<Self>> {
        vec![Call::new("GET /requests", "getRequests", "Single requests", Self::requests)]
    }

    async fn requests(
        self: Arc<Self>,
        request: CallRequest<(), RequestsQuery>,
    ) -> Result<Json<Requests>, AdminError> {
        let RequestsQuery { limit, before, key, failed, request_id } = request.query;
        let limit = PageLimit::or_default(limit);
        let mut query = RequestQuery::latest(limit);
        query.before = before.map(|RowNumber(number)| number);
        query.failed_only = failed.is_some_and(|BoolParam(failed)| failed);
        if let Some(KeyRefField(key)) = key {
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

impl From<RejectionEntry> for Request {
    fn from(request: RejectionEntry) -> Self {
        let RejectionEntry { at, request_id, method, path, status, code, key, client_addr } =
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
