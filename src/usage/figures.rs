//! The JSON that tells a holder what was used.

use std::{cmp::Reverse, collections::HashMap};

use serde::Serialize;

use crate::{
    clock::{Day, rfc3339},
    key::{KeyId, KeyRecord},
    store::{QuotaStatus, RequestRecord, TokenSums, Tokens, UsageFigures, UsageRow},
};

/// Days of the past that `history` tells of.
pub(super) const HISTORY: u32 = 30;
/// How many models are told of: an upstream may echo whatever name it is asked for.
const MODELS: usize = 100;

#[derive(Serialize)]
pub(super) struct Usage<'a> {
    object: &'static str,
    id: &'a KeyId,
    key: &'a str,
    label: &'a str,
    day: Day,
    timezone: &'a str,
    daily_limit: u32,
    used: u64,
    remaining: Option<u64>,
    unlimited: bool,
    resets_at: String,
    requests: Requests,
    #[serde(with = "TokenSums")]
    tokens: Tokens,
    expires_at: Option<String>,
    history: Vec<PastDay>,
    models: Vec<Model>,
    /// Absent where the store keeps no single requests, or none that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FailedRequest<'a>>,
}

#[derive(Serialize)]
struct Requests {
    succeeded: u64,
    failed: u64,
    refunded: u64,
    /// Of `succeeded`, whose answers told no tokens.
    tokens_unknown: u64,
}

#[derive(Serialize)]
struct PastDay {
    day: Day,
    requests: u64,
    succeeded: u64,
    failed: u64,
    tokens: u64,
    tokens_unknown: u64,
}

#[derive(Serialize)]
struct Model {
    /// `None` for requests whose answer names no model.
    model: Option<String>,
    requests: u64,
    tokens: u64,
    tokens_unknown: u64,
}

/// What the report shows of a request that did not succeed.
#[derive(Serialize)]
struct FailedRequest<'a> {
    at: String,
    status: Option<u16>,
    code: &'a str,
    model: Option<&'a str>,
    refunded: bool,
}

impl<'a> From<&'a RequestRecord> for FailedRequest<'a> {
    fn from(RequestRecord { event, .. }: &'a RequestRecord) -> Self {
        Self {
            at: rfc3339(event.at),
            status: event.status,
            code: event.code.as_deref().unwrap_or(event.outcome.as_str()),
            model: event.model.as_deref().or(event.requested_model.as_deref()),
            refunded: event.refunded,
        }
    }
}

impl<'a> Usage<'a> {
    /// `rows` are the key's, a day and model each, of today and the [`HISTORY`] days before;
    /// `failed` its latest requests that did not end well.
    pub(super) fn of(
        record: &'a KeyRecord,
        status: &QuotaStatus,
        timezone: &'a str,
        rows: Vec<UsageRow>,
        failed: &'a [RequestRecord],
    ) -> Self {
        let limit = status.daily_limit.limited();
        let mut days = HashMap::<Day, UsageFigures>::new();
        let mut models = HashMap::<Option<String>, UsageFigures>::new();
        for row in rows {
            let Some(day) = row.day else { continue };
            *days.entry(day).or_default() += row.figures;
            // So that both tell of 30 days, today is one of them here.
            if day > status.day.minus(HISTORY) {
                let model = row.model.filter(|model| !model.is_empty());
                *models.entry(model).or_default() += row.figures;
            }
        }
        let today = days.remove(&status.day).unwrap_or_default();
        Self {
            object: "usage",
            id: &record.id,
            key: &record.masked,
            label: &record.label,
            day: status.day,
            timezone,
            daily_limit: status.daily_limit.get(),
            used: status.used.min(limit.unwrap_or(u64::MAX)),
            remaining: status.remaining(),
            unlimited: limit.is_none(),
            resets_at: rfc3339(status.resets_at),
            requests: Requests {
                succeeded: today.succeeded,
                failed: today.failed,
                refunded: today.refunded,
                tokens_unknown: today.tokens_unknown,
            },
            tokens: today.tokens,
            expires_at: record.expires_at.map(rfc3339),
            history: history(days),
            models: busiest(models),
            errors: failed.iter().map(FailedRequest::from).collect(),
        }
    }
}

/// Newest first, without the days on which nothing was used.
fn history(days: HashMap<Day, UsageFigures>) -> Vec<PastDay> {
    let mut history: Vec<PastDay> = days
        .into_iter()
        .filter(|(_, figures)| figures.requests > 0)
        .map(|(day, figures)| PastDay {
            day,
            requests: figures.requests,
            succeeded: figures.succeeded,
            failed: figures.failed,
            tokens: figures.tokens.total,
            tokens_unknown: figures.tokens_unknown,
        })
        .collect();
    history.sort_unstable_by_key(|past| Reverse(past.day));
    history
}

fn busiest(models: HashMap<Option<String>, UsageFigures>) -> Vec<Model> {
    let mut models: Vec<Model> = models
        .into_iter()
        .filter(|(_, figures)| figures.requests > 0)
        .map(|(model, figures)| Model {
            model,
            requests: figures.requests,
            tokens: figures.tokens.total,
            tokens_unknown: figures.tokens_unknown,
        })
        .collect();
    models.sort_unstable_by(|a, b| {
        let order = |model: &Model| Reverse((model.requests, model.tokens));
        order(a).cmp(&order(b)).then_with(|| a.model.cmp(&b.model))
    });
    models.truncate(MODELS);
    models
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_models_are_told_of() {
        let figures = |requests| UsageFigures { requests, ..UsageFigures::default() };
        let named = (1..=200).map(|count| (Some(format!("m{count}")), figures(count)));
        let models = busiest(
            named.chain([(None, figures(500)), (Some("refused".into()), figures(0))]).collect(),
        );
        let requests: Vec<u64> = models.iter().map(|model| model.requests).collect();
        assert_eq!(requests, [500].into_iter().chain((102..=200).rev()).collect::<Vec<u64>>());
        assert_eq!((&models[0].model, models[1].model.as_deref()), (&None, Some("m200")));
    }
}
