//! Columns of the tables of sums, and of single requests.

use std::time::Duration;

use crate::{clock::unix_millis, key::KeyId, store::UsageEvent};

/// Columns of [`UsageFigures`](super::UsageFigures), which are read and written in this order.
pub(crate) const FIGURES: [&str; 11] = [
    "requests",
    "succeeded",
    "failed",
    "refunded",
    "rejected",
    "tokens_unknown",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
];

/// Value of a column of a single request.
#[derive(Debug)]
pub(crate) enum Cell<'a> {
    Text(Option<&'a str>),
    Int(Option<i64>),
    Bool(bool),
}

/// Returns the columns of the row of an event, without its number.
pub(crate) fn request_cells(event: &UsageEvent) -> [(&'static str, Cell<'_>); 22] {
    let UsageEvent {
        key_id,
        at,
        request_id,
        method,
        path,
        status,
        outcome,
        code,
        units,
        refunded,
        requested_model,
        model,
        tokens,
        bytes_in,
        bytes_out,
        time_to_head,
        time_to_first_byte,
        duration,
        admission: _,
    } = event;
    let count = |count: Option<u64>| Cell::Int(count.map(bounded));
    let micros = |time: &Option<Duration>| time.map(|time| bounded(time.as_micros()));
    [
        ("key_id", Cell::Text(key_id.as_ref().map(KeyId::as_str))),
        ("at", Cell::Int(Some(unix_millis(*at)))),
        ("request_id", Cell::Text(request_id.as_deref())),
        ("method", Cell::Text(Some(method.as_str()))),
        ("path", Cell::Text(Some(path))),
        ("status", Cell::Int(status.map(i64::from))),
        ("outcome", Cell::Text(Some(outcome.as_str()))),
        ("code", Cell::Text(code.as_deref())),
        ("units", Cell::Int(Some(i64::from(*units)))),
        ("refunded", Cell::Bool(*refunded)),
        ("model_asked", Cell::Text(requested_model.as_deref())),
        ("model", Cell::Text(model.as_deref())),
        ("prompt_tokens", count(tokens.map(|tokens| tokens.prompt))),
        ("completion_tokens", count(tokens.map(|tokens| tokens.completion))),
        ("total_tokens", count(tokens.map(|tokens| tokens.total))),
        ("cached_tokens", count(tokens.and_then(|tokens| tokens.cached))),
        ("reasoning_tokens", count(tokens.and_then(|tokens| tokens.reasoning))),
        ("bytes_in", count(Some(*bytes_in))),
        ("bytes_out", count(Some(*bytes_out))),
        ("time_to_head", Cell::Int(micros(time_to_head))),
        ("time_to_first_byte", Cell::Int(micros(time_to_first_byte))),
        ("duration", Cell::Int(Some(micros(duration).unwrap_or(0)))),
    ]
}

/// Converts a number to the largest type of the databases, whose largest value stands for larger ones.
fn bounded(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
