//! The fields of a key in requests.

use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    admin::{
        calls::keys::generate,
        http::{
            error::AdminError,
            input::{
                Expiry, Flag, KeyCount, Label, LabelPattern, RequestLimit, User, non_null, nullable,
            },
        },
        store::NewKey,
    },
    clock::Day,
    error::StoreError,
    key::{DefaultLimits, KeyId, KeyLimit, KeyPatch, KeyRecord, LimitChanges, user_from_label},
};

/// One or several keys to issue.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKeys {
    /// Label of the key. `{n}` stands for its number: with `count` 30, `workshop-{n}` yields
    /// `workshop-01` to `workshop-30`, at most 200 characters each.
    #[schemars(example = &"workshop-{n}")]
    pub(super) label: Option<LabelPattern>,
    /// Requests per day, 0 for unlimited. Default: the gateway's default limit.
    #[schemars(example = 200)]
    pub(super) daily_limit: Option<RequestLimit>,
    /// Requests per calendar month, 0 for unlimited. Default: the gateway's default limit.
    #[schemars(example = 5000)]
    pub(super) monthly_limit: Option<RequestLimit>,
    /// Requests per minute, 0 for unlimited. Default: the gateway's default limit.
    #[schemars(example = 20)]
    pub(super) minute_limit: Option<RequestLimit>,
    /// Requests in flight, 0 for unlimited. Default: the gateway's default limit.
    #[schemars(example = 4)]
    pub(super) max_in_flight: Option<RequestLimit>,
    /// The `{user}` part of the key. Default: derived from the label.
    #[schemars(example = &"alice")]
    pub(super) user: Option<User>,
    /// The time at which the key expires, in the future. A day or Unix seconds are accepted, too.
    #[schemars(example = &"2999-12-31T00:00:00Z")]
    pub(super) expires_at: Option<Expiry>,
    /// Number of keys, all or none of which are issued. Absent: one, and the response is that key.
    #[schemars(example = 30)]
    pub(super) count: Option<KeyCount>,
}

impl NewKeys {
    /// Returns the keys to issue.
    pub(super) fn into_keys(
        self,
        now: SystemTime,
        today: Day,
        defaults: DefaultLimits,
    ) -> Result<Vec<NewKey>, AdminError> {
        let Self {
            label,
            daily_limit,
            monthly_limit,
            minute_limit,
            max_in_flight,
            user,
            expires_at,
            count,
        } = self;
        let expires_at = expires_at.map(|Expiry(at)| at);
        if expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(AdminError::invalid_field("expires_at", "a time in the future"));
        }
        let daily_limit = daily_limit.map_or(defaults.daily, |RequestLimit(limit)| limit);
        let mut limits = defaults.others;
        limit_changes(monthly_limit, minute_limit, max_in_flight).apply(&mut limits);
        let user = user.map(|User(user)| user);
        let count = count.map_or(1, |KeyCount(count)| count);
        let new_key = |n| {
            let label = label.as_ref().map_or(Some(String::new()), |label| label.label(n, count));
            let label = label.ok_or_else(|| AdminError::invalid_field("label", Label::EXPECTED))?;
            let user = user.clone().unwrap_or_else(|| user_from_label(&label));
            let secret = generate(&user, today)?;
            let record = KeyRecord {
                id: KeyId::generate(),
                masked: String::new(),
                label,
                daily_limit,
                limits,
                created_at: None,
                expires_at,
                disabled: false,
            };
            Ok(NewKey::new(secret, record).map_err(StoreError::misconfigured)?)
        };
        (1..=count).map(new_key).collect()
    }
}

/// New values for some fields of a key. Absent fields keep their values.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct KeyChanges {
    /// Label of the key.
    #[serde(default, deserialize_with = "non_null")]
    #[schemars(with = "Label", example = &"alice")]
    pub(super) label: Option<Label>,
    /// Requests per day, 0 for unlimited.
    #[serde(default, deserialize_with = "non_null")]
    #[schemars(with = "RequestLimit", example = 1000)]
    pub(super) daily_limit: Option<RequestLimit>,
    /// Requests per calendar month, 0 for unlimited.
    #[serde(default, deserialize_with = "non_null")]
    #[schemars(with = "RequestLimit", example = 5000)]
    pub(super) monthly_limit: Option<RequestLimit>,
    /// Requests per minute, 0 for unlimited.
    #[serde(default, deserialize_with = "non_null")]
    #[schemars(with = "RequestLimit", example = 20)]
    pub(super) minute_limit: Option<RequestLimit>,
    /// Requests in flight, 0 for unlimited.
    #[serde(default, deserialize_with = "non_null")]
    #[schemars(with = "RequestLimit", example = 4)]
    pub(super) max_in_flight: Option<RequestLimit>,
    /// The time at which the key expires, or `null` for never. A day or Unix seconds are accepted,
    /// too.
    #[serde(default, deserialize_with = "nullable")]
    #[schemars(with = "Option<Expiry>", example = &"2999-12-31T00:00:00Z")]
    pub(super) expires_at: Option<Option<Expiry>>,
    /// Whether the key is disabled.
    #[serde(default, deserialize_with = "non_null")]
    #[schemars(with = "Flag", example = true)]
    pub(super) disabled: Option<Flag>,
}

impl KeyChanges {
    /// Returns the patch, which must set at least one field.
    pub(super) fn into_patch(self) -> Result<KeyPatch, AdminError> {
        let Self {
            label,
            daily_limit,
            monthly_limit,
            minute_limit,
            max_in_flight,
            expires_at,
            disabled,
        } = self;
        let patch = KeyPatch {
            label: label.map(|Label(label)| label),
            daily_limit: daily_limit.map(|RequestLimit(limit)| limit),
            limits: limit_changes(monthly_limit, minute_limit, max_in_flight),
            expires_at: expires_at.map(|at| at.map(|Expiry(at)| at)),
            disabled: disabled.map(|Flag(disabled)| disabled),
        };
        if patch == KeyPatch::default() {
            return Err(AdminError::missing_field(
                "label`, `daily_limit`, `monthly_limit`, `minute_limit`, `max_in_flight`, `expires_at` or `disabled",
            ));
        }
        Ok(patch)
    }
}

/// Returns the limits that a request sets.
fn limit_changes(
    monthly: Option<RequestLimit>,
    minute: Option<RequestLimit>,
    in_flight: Option<RequestLimit>,
) -> LimitChanges {
    KeyLimit::ALL.into_iter().fold(LimitChanges::default(), |changes, limit| {
        let value = match limit {
            KeyLimit::Monthly => &monthly,
            KeyLimit::Minute => &minute,
            KeyLimit::InFlight => &in_flight,
        };
        changes.with(limit, value.as_ref().map(|RequestLimit(limit)| *limit))
    })
}
