//! Keys and claims in responses.

use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    admin::{
        client_addrs::ClientAddrs,
        http::{
            json::{LimitNumber, Timestamp},
            schema,
        },
        store::{ClaimSummary, KeyState, KeySummary},
    },
    key::{KeyId, KeyLimit, KeyLimits, KeyRecord, KeyVersion, SecretKey},
};

/// A key that was just issued, in the only response that shows the whole key.
#[derive(Serialize, JsonSchema)]
pub(crate) struct IssuedKey {
    #[schemars(with = "schema::KeyId")]
    id: KeyId,
    /// The whole key. It is not shown again.
    #[schemars(example = &"trial-alice-20261122-…")]
    key: String,
    label: String,
    daily_limit: LimitNumber,
    #[serde(flatten)]
    limits: OtherLimits,
    created_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    disabled: bool,
    /// The value for `If-Match`, in quotes.
    #[schemars(with = "schema::KeyVersion")]
    version: KeyVersion,
}

impl IssuedKey {
    pub(crate) fn new(secret: &SecretKey, record: &KeyRecord) -> Self {
        let version = KeyVersion::of(record, Some(secret.hash()));
        let KeyRecord {
            id,
            masked: _,
            label,
            daily_limit,
            limits,
            created_at,
            expires_at,
            disabled,
        } = record.clone();
        Self {
            id,
            key: secret.expose().to_owned(),
            label,
            daily_limit: LimitNumber(daily_limit),
            limits: limits.into(),
            created_at: created_at.map(Timestamp),
            expires_at: expires_at.map(Timestamp),
            disabled,
            version,
        }
    }

    pub(crate) fn version(&self) -> KeyVersion {
        self.version
    }
}

/// A key in lists: masked, with its usage.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ListedKey {
    #[schemars(with = "schema::KeyId")]
    id: KeyId,
    /// The key, masked.
    #[schemars(example = &"trial-alice-…x7Qp")]
    key: String,
    label: String,
    daily_limit: LimitNumber,
    #[serde(flatten)]
    limits: OtherLimits,
    used_today: u64,
    /// Remaining units today, `null` without a limit.
    remaining: Option<u64>,
    total_used: u64,
    created_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    disabled: bool,
    #[schemars(with = "schema::KeyState")]
    state: KeyState,
    /// Estimated number of client addresses in the last 24 hours, or since the gateway's start; `null`
    /// if it records no addresses.
    addresses_24h: Option<u64>,
    /// Latest claim, `null` if there is none or it was withdrawn.
    claim: Option<ClaimView>,
    /// The value for `If-Match`, in quotes.
    #[schemars(with = "schema::KeyVersion")]
    version: KeyVersion,
}

impl ListedKey {
    pub(crate) fn new(
        summary: KeySummary,
        now: SystemTime,
        client_addrs: Option<&ClientAddrs>,
    ) -> Self {
        let remaining = summary.remaining();
        let (state, version) = (summary.state(now), summary.version());
        let KeySummary { record, hash: _, used_today, total_used, last_used_at, claim } = summary;
        let KeyRecord { id, masked, label, daily_limit, limits, created_at, expires_at, disabled } =
            record;
        Self {
            addresses_24h: client_addrs.map(|addrs| addrs.estimate(&id)),
            id,
            key: masked,
            label,
            daily_limit: LimitNumber(daily_limit),
            limits: limits.into(),
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

/// The limits of a key besides its requests per day.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OtherLimits {
    /// Requests per calendar month, 0 for unlimited.
    monthly_limit: LimitNumber,
    /// Requests per minute, 0 for unlimited.
    minute_limit: LimitNumber,
    /// Requests in flight, 0 for unlimited.
    max_in_flight: LimitNumber,
}

impl From<KeyLimits> for OtherLimits {
    fn from(limits: KeyLimits) -> Self {
        let number = |limit| LimitNumber(limits.get(limit));
        Self {
            monthly_limit: number(KeyLimit::Monthly),
            minute_limit: number(KeyLimit::Minute),
            max_in_flight: number(KeyLimit::InFlight),
        }
    }
}

/// A claim as operators see it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ClaimView {
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
