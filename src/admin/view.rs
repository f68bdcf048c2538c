//! What answers look like.

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

/// A JSON answer with this status, of plain structs that cannot fail to serialise.
pub(super) fn answer(status: StatusCode, value: &impl Serialize) -> Response<Bytes> {
    json_response(status, json(value))
}

/// An answer of this JSON.
pub(super) fn json_response(status: StatusCode, json: Bytes) -> Response<Bytes> {
    let mut response = Response::new(json);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An instant as RFC 3339 in UTC, whole seconds.
pub(super) struct Instant(pub(super) SystemTime);

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// A key that was just issued: the one answer that shows it whole.
#[derive(Serialize, JsonSchema)]
pub(super) struct IssuedKey {
    id: KeyId,
    /// The whole key. It is shown this once.
    #[schemars(example = &"trial-alice-20261122-…")]
    key: String,
    label: String,
    daily_limit: DailyLimit,
    created_at: Option<Instant>,
    expires_at: Option<Instant>,
    disabled: bool,
    /// What `If-Match` takes, in quotes.
    version: KeyVersion,
}

impl IssuedKey {
    pub(super) fn new(secret: &SecretKey, record: &KeyRecord) -> Self {
        Self {
            id: record.id.clone(),
            key: secret.expose().to_owned(),
            label: record.label.clone(),
            daily_limit: record.daily_limit,
            created_at: record.created_at.map(Instant),
            expires_at: record.expires_at.map(Instant),
            disabled: record.disabled,
            version: KeyVersion::of(record, Some(secret.hash())),
        }
    }

    pub(super) fn version(&self) -> KeyVersion {
        self.version
    }
}

/// A key as lists show it: masked, with its figures.
#[derive(Serialize, JsonSchema)]
pub(super) struct ListedKey {
    id: KeyId,
    /// The key, masked.
    #[schemars(example = &"trial-alice-…x7Qp")]
    key: String,
    label: String,
    daily_limit: DailyLimit,
    used_today: u64,
    /// Units left today; `null` without a limit.
    remaining: Option<u64>,
    total_used: u64,
    created_at: Option<Instant>,
    last_used_at: Option<Instant>,
    expires_at: Option<Instant>,
    disabled: bool,
    state: KeyState,
    /// Estimated number of client addresses in the last 24 hours, since the gateway's start; `null` if
    /// it keeps no addresses.
    addresses_24h: Option<u64>,
    /// Its latest claim; `null` if there is none, or it was withdrawn.
    claim: Option<MadeClaim>,
    /// What `If-Match` takes, in quotes.
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
        let record = summary.record;
        Self {
            addresses_24h: client_addrs.map(|addrs| addrs.estimate(&record.id)),
            id: record.id,
            key: record.masked,
            label: record.label,
            daily_limit: record.daily_limit,
            used_today: summary.used_today,
            remaining,
            total_used: summary.total_used,
            created_at: record.created_at.map(Instant),
            last_used_at: summary.last_used_at.map(Instant),
            expires_at: record.expires_at.map(Instant),
            disabled: record.disabled,
            state,
            claim: summary.claim.map(MadeClaim::from),
            version,
        }
    }
}

/// A claim as its operator sees it.
#[derive(Serialize, JsonSchema)]
pub(super) struct MadeClaim {
    created_at: Instant,
    /// Until when its link can be opened.
    expires_at: Instant,
    opened_at: Option<Instant>,
}

impl From<ClaimSummary> for MadeClaim {
    fn from(claim: ClaimSummary) -> Self {
        Self {
            created_at: Instant(claim.created_at),
            expires_at: Instant(claim.expires_at),
            opened_at: claim.opened_at.map(Instant),
        }
    }
}
