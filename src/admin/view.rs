//! JSON responses and the types that several of them share.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::client_addrs::ClientAddrs;
use crate::{
    clock::rfc3339,
    error::json,
    key::{DailyLimit, KeyId, KeyRecord, SecretKey},
    store::{ClaimSummary, KeyState, KeySummary, KeyVersion},
};

/// A JSON response of a value that cannot fail to serialise (plain structs).
pub(super) fn json_response(status: StatusCode, value: &impl Serialize) -> Response<Bytes> {
    raw_json_response(status, json(value))
}

/// A response with this JSON text.
pub(super) fn raw_json_response(status: StatusCode, json: Bytes) -> Response<Bytes> {
    let mut response = Response::new(json);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A time, serialised as RFC 3339 in UTC with whole seconds.
pub(super) struct Timestamp(pub(super) SystemTime);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// A key that was just issued, in the only response that shows the whole key.
#[derive(Serialize, JsonSchema)]
pub(super) struct IssuedKey {
    id: KeyId,
    /// The whole key. It is not shown again.
    #[schemars(example = &"trial-alice-20261122-…")]
    key: String,
    label: String,
    daily_limit: DailyLimit,
    created_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    disabled: bool,
    /// The value for `If-Match`, in quotes.
    version: KeyVersion,
}

impl IssuedKey {
    pub(super) fn new(secret: &SecretKey, record: &KeyRecord) -> Self {
        let version = KeyVersion::of(record, Some(secret.hash()));
        let KeyRecord { id, masked: _, label, daily_limit, created_at, expires_at, disabled } =
            record.clone();
        Self {
            id,
            key: secret.expose().to_owned(),
            label,
            daily_limit,
            created_at: created_at.map(Timestamp),
            expires_at: expires_at.map(Timestamp),
            disabled,
            version,
        }
    }

    pub(super) fn version(&self) -> KeyVersion {
        self.version
    }
}

/// A key in lists: masked, with its usage.
#[derive(Serialize, JsonSchema)]
pub(super) struct ListedKey {
    id: KeyId,
    /// The key, masked.
    #[schemars(example = &"trial-alice-…x7Qp")]
    key: String,
    label: String,
    daily_limit: DailyLimit,
    used_today: u64,
    /// Remaining units today, `null` without a limit.
    remaining: Option<u64>,
    total_used: u64,
    created_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    disabled: bool,
    state: KeyState,
    /// Estimated number of client addresses in the last 24 hours, or since the gateway's start; `null`
    /// if it records no addresses.
    addresses_24h: Option<u64>,
    /// Latest claim, `null` if there is none or it was withdrawn.
    claim: Option<ClaimView>,
    /// The value for `If-Match`, in quotes.
    version: KeyVersion,
}

impl ListedKey {
    pub(super) fn new(
        summary: KeySummary,
        now: SystemTime,
        client_addrs: Option<&ClientAddrs>,
    ) -> Self {
        let remaining = summary.remaining();
        let (state, version) = (summary.state(now), summary.version());
        let KeySummary { record, hash: _, used_today, total_used, last_used_at, claim } = summary;
        let KeyRecord { id, masked, label, daily_limit, created_at, expires_at, disabled } = record;
        Self {
            addresses_24h: client_addrs.map(|addrs| addrs.estimate(&id)),
            id,
            key: masked,
            label,
            daily_limit,
            used_today,
            remaining,
            total_used,
            created_at: created_at.map(Timestamp),
            last_used_at: last_used_at.map(Timestamp),
            expires_at: expires_at.map(Timestamp),
            disabled,
            state,
            claim: claim.map(ClaimView::from),
            version,
        }
    }
}

/// A claim as operators see it.
#[derive(Serialize, JsonSchema)]
pub(super) struct ClaimView {
    created_at: Timestamp,
    /// The time at which the link expires.
    expires_at: Timestamp,
    opened_at: Option<Timestamp>,
}

impl From<ClaimSummary> for ClaimView {
    fn from(claim: ClaimSummary) -> Self {
        Self {
            created_at: Timestamp(claim.created_at),
            expires_at: Timestamp(claim.expires_at),
            opened_at: claim.opened_at.map(Timestamp),
        }
    }
}
