//! What the calls on keys take.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::input::{
    After, ClaimTime, Count, Expiry, Flag, Grace, KeyName, Label, LabelPattern, Limit, PageLimit,
    SearchText, Sort, State, User, given, nullable,
};

/// Keys to be issued.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct NewKeys {
    /// What the operator calls the key. `{n}` stands for its number: with `count` 30,
    /// `workshop-{n}` yields `workshop-01` to `workshop-30`. At most 200 characters then.
    #[schemars(example = &"workshop-{n}")]
    pub(super) label: Option<LabelPattern>,
    /// Requests a day, 0 for unlimited. Absent: the gateway's default.
    #[schemars(example = 200)]
    pub(super) daily_limit: Option<Limit>,
    /// The `{user}` part of the key's text. Absent: what the label yields.
    #[schemars(example = &"alice")]
    pub(super) user: Option<User>,
    /// From when on the key is refused; a time to come. A day and Unix seconds are read, too.
    #[schemars(example = &"2999-12-31T00:00:00Z")]
    pub(super) expires_at: Option<Expiry>,
    /// How many keys; all or none are issued. Absent: one, and the answer is that key.
    #[schemars(example = 30)]
    pub(super) count: Option<Count>,
}

/// Which page of keys is asked for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct KeysWanted {
    /// How many keys the page has; 100 if absent.
    pub(super) limit: Option<PageLimit>,
    /// The `next` of the page before, in the same order.
    pub(super) after: Option<After>,
    /// Only keys with this text in label, id or masked key, in any case; or the key of this text; or
    /// those whose SHA-256 begins with these 8 or more hexadecimal digits.
    pub(super) search: Option<SearchText>,
    /// In which order; `issued` if absent. `nearest_limit` begins with those that have used most of
    /// their limit today.
    pub(super) sort: Option<Sort>,
    /// Only keys in this state.
    pub(super) state: Option<State>,
}

/// New values for some fields of a key; what is absent stays as it is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(in crate::admin) struct KeyChanges {
    /// What the operator calls the key.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Label", example = &"alice")]
    pub(super) label: Option<Label>,
    /// Requests a day, 0 for unlimited.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Limit", example = 1000)]
    pub(super) daily_limit: Option<Limit>,
    /// From when on the key is refused; `null` takes that away. A day and Unix seconds are read,
    /// too.
    #[serde(default, deserialize_with = "nullable")]
    #[schemars(with = "Option<Expiry>", example = &"2999-12-31T00:00:00Z")]
    pub(super) expires_at: Option<Option<Expiry>>,
    /// Whether the key is switched off.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Flag", example = true)]
    pub(super) disabled: Option<Flag>,
}

/// How a key is rotated.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct RotationWanted {
    /// How many seconds the old key still works; 0 if absent.
    #[schemars(example = 3600)]
    pub(super) grace_seconds: Option<Grace>,
}

/// A claim that is made.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ClaimWanted {
    /// For how many seconds its link can be opened; seven days if absent.
    #[schemars(example = 86400)]
    pub(super) expires_in_seconds: Option<ClaimTime>,
}

/// Whose count goes back to 0. It never means everybody.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ResetWanted {
    /// The id of a key, or the whole key.
    #[schemars(example = &"key_0123456789abcdef")]
    pub(super) key: KeyName,
}
