use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    admin::http::csv,
    clock::Day,
    key::{DailyLimit, KeyId},
    store::{KeySummary, TokenSums, Tokens, UsageFigures, UsageRow},
};

/// One row of a report. Dimensions by which it is not grouped are absent.
#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Item {
    #[serde(flatten)]
    pub(super) key: Option<KeyPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<Day>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    requests: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_today: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    #[serde(flatten)]
    limit: Option<LimitPart>,
    #[serde(with = "TokenSums")]
    tokens: Tokens,
    succeeded: u64,
    failed: u64,
    refunded: u64,
    rejected: u64,
    /// Number of succeeded requests whose responses did not report tokens.
    tokens_unknown: u64,
}

/// The key of a row. A deleted key has the masked key and label that it had last.
#[derive(Serialize, JsonSchema)]
pub(super) struct KeyPart {
    pub(super) id: KeyId,
    /// The key, masked.
    key: Option<String>,
    label: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct LimitPart {
    daily_limit: Option<DailyLimit>,
    /// Remaining units on the row's day, `null` without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<Option<u64>>,
}

impl Item {
    /// Creates an item. `used_today` and `remaining` belong to the row's day; a row over several days
    /// has `used`.
    pub(super) fn new(row: UsageRow, one_day: bool) -> Self {
        let UsageFigures {
            requests,
            succeeded,
            failed,
            refunded,
            rejected,
            tokens_unknown,
            tokens,
        } = row.figures;
        let one_day = one_day || row.day.is_some();
        let remaining = row.used.filter(|_| one_day).and_then(|used| {
            let limit = row.daily_limit?;
            Some(limit.limited().map(|limit| limit.saturating_sub(used)))
        });
        Self {
            limit: row
                .key_id
                .is_some()
                .then_some(LimitPart { daily_limit: row.daily_limit, remaining }),
            key: row.key_id.map(|id| KeyPart { id, key: row.masked, label: row.label }),
            day: row.day,
            model: row.model,
            requests,
            used_today: row.used.filter(|_| one_day),
            used: row.used.filter(|_| !one_day),
            tokens,
            succeeded,
            failed,
            refunded,
            rejected,
            tokens_unknown,
        }
    }

    /// Creates the item of a key without requests on this day.
    pub(super) fn idle(key: KeySummary, day: Day) -> Self {
        Self {
            limit: Some(LimitPart {
                daily_limit: Some(key.record.daily_limit),
                remaining: Some(key.record.daily_limit.limited()),
            }),
            key: Some(KeyPart {
                id: key.record.id,
                key: Some(key.record.masked),
                label: Some(key.record.label),
            }),
            day: Some(day),
            used_today: Some(0),
            ..Self::default()
        }
    }
}

pub(super) const COLUMNS: [&str; 17] = [
    "day",
    "id",
    "key",
    "label",
    "model",
    "requests",
    "used",
    "daily_limit",
    "remaining",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "succeeded",
    "failed",
    "refunded",
    "rejected",
    "tokens_unknown",
];

impl Item {
    /// Returns the item's row of [`COLUMNS`].
    pub(super) fn row(&self) -> [Cow<'static, str>; COLUMNS.len()] {
        let key = self.key.as_ref();
        let limit = self.limit.as_ref();
        let daily_limit = limit.and_then(|limit| limit.daily_limit).map(DailyLimit::get);
        let remaining = limit.and_then(|limit| limit.remaining).flatten();
        [
            csv::value(self.day),
            csv::text(key.map(|key| key.id.as_str())),
            csv::text(key.and_then(|key| key.key.as_deref())),
            csv::text(key.and_then(|key| key.label.as_deref())),
            csv::text(self.model.as_deref()),
            csv::value(Some(self.requests)),
            csv::value(self.used_today.or(self.used)),
            csv::value(daily_limit),
            csv::value(remaining),
            csv::value(Some(self.tokens.prompt)),
            csv::value(Some(self.tokens.completion)),
            csv::value(Some(self.tokens.total)),
            csv::value(Some(self.succeeded)),
            csv::value(Some(self.failed)),
            csv::value(Some(self.refunded)),
            csv::value(Some(self.rejected)),
            csv::value(Some(self.tokens_unknown)),
        ]
    }
}
