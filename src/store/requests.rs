use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::{Tokens, UsageEvent};
use crate::{clock::rfc3339, key::KeyId};

/// One finished request of a known key, as a store keeps it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RequestRow {
    /// Later ones have larger numbers.
    pub number: u64,
    /// Whose it was.
    #[serde(rename = "id")]
    pub key_id: KeyId,
    /// When it was received.
    #[serde(serialize_with = "time")]
    pub at: SystemTime,
    /// The id by which the request was known, as its answer says it (`x-request-id`).
    pub request_id: Option<String>,
    /// The request's method.
    pub method: String,
    /// The request's path; of its segments only those that are plain words.
    pub path: String,
    /// The answer's status; `None` if there was none.
    pub status: Option<u16>,
    /// How it ended: the name of an [`Outcome`](super::Outcome).
    pub outcome: String,
    /// Why it was refused, or what was wrong with the upstream.
    pub code: Option<String>,
    /// Units charged for it, after refunds.
    pub units: u32,
    /// Whether a unit was given back.
    pub refunded: bool,
    /// The model that the request named.
    pub model_asked: Option<String>,
    /// The model that the answer named.
    pub model: Option<String>,
    /// The tokens that the answer told.
    pub tokens: Option<Tokens>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From receipt to the answer's head, in milliseconds where serialised.
    #[serde(rename = "time_to_head_ms", serialize_with = "optional_millis")]
    pub time_to_head: Option<Duration>,
    /// From receipt to the first bytes of the answer's body.
    #[serde(rename = "time_to_first_byte_ms", serialize_with = "optional_millis")]
    pub time_to_first_byte: Option<Duration>,
    /// From receipt to the body's end.
    #[serde(rename = "duration_ms", serialize_with = "millis")]
    pub duration: Duration,
}

impl RequestRow {
    /// What is kept of an event, unless it tells of no key.
    pub fn new(number: u64, event: &UsageEvent) -> Option<Self> {
        Some(Self {
            number,
            key_id: event.key_id.clone()?,
            at: event.at,
            request_id: event.request_id.clone(),
            method: event.method.to_string(),
            path: plain_path(&event.path),
            status: event.status,
            outcome: event.outcome.as_str().to_owned(),
            code: event.outcome.reason().or(event.fault).map(str::to_owned),
            units: event.units,
            refunded: event.refunded,
            model_asked: event.model_asked.clone(),
            model: event.model.clone(),
            tokens: event.tokens,
            bytes_in: event.bytes_in,
            bytes_out: event.bytes_out,
            time_to_head: event.time_to_head,
            time_to_first_byte: event.time_to_first_byte,
            duration: event.duration,
        })
    }
}

/// Which single requests are asked for, the latest first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestQuery {
    /// One key's only.
    pub key_id: Option<KeyId>,
    /// Only those that were known by this id.
    pub request_id: Option<String>,
    /// Only those that did not end well.
    pub failed_only: bool,
    /// Only those with smaller numbers.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

impl RequestQuery {
    /// The latest ones, at most so many.
    pub fn latest(limit: usize) -> Self {
        Self { key_id: None, request_id: None, failed_only: false, before: None, limit }
    }

    /// Only this key's.
    #[must_use]
    pub fn key(self, key_id: KeyId) -> Self {
        Self { key_id: Some(key_id), ..self }
    }

    /// Only those that were known by this id.
    #[must_use]
    pub fn request_id(self, request_id: String) -> Self {
        Self { request_id: Some(request_id), ..self }
    }

    /// Only those that did not end well.
    #[must_use]
    pub fn failed_only(self) -> Self {
        Self { failed_only: true, ..self }
    }

    /// Only those with smaller numbers than this.
    #[must_use]
    pub fn before(self, number: u64) -> Self {
        Self { before: Some(number), ..self }
    }

    #[cfg(feature = "memory")]
    pub(super) fn wants(&self, row: &RequestRow) -> bool {
        self.key_id.as_ref().is_none_or(|id| *id == row.key_id)
            && (self.request_id.is_none() || self.request_id == row.request_id)
            && self.before.is_none_or(|number| row.number < number)
            && !(self.failed_only && row.outcome == super::Outcome::Succeeded.as_str())
    }
}

/// A path for logs and tables. A key may stand in it by design or by mistake, so whatever is no plain
/// word is left out.
pub fn plain_path(path: &str) -> String {
    let is_plain = |segment: &str| {
        segment == "v1"
            || segment.len() <= 16
                && segment.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let mut plain = String::with_capacity(path.len().min(256));
    for (number, segment) in path.split('/').enumerate() {
        if plain.len() > 200 {
            plain.push('…');
            break;
        }
        if number > 0 {
            plain.push('/');
        }
        plain.push_str(if is_plain(segment) { segment } else { "…" });
    }
    plain
}

fn time<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

fn millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_micros() as f64 / 1000.0)
}

fn optional_millis<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => millis(time, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_in_a_plain_path() {
        for (path, plain) in [
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/models/gpt-4.1", "/v1/models/…"),
            ("/v1/trial-alice-20261122-x7Qp", "/v1/…"),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(plain_path(path), plain);
        }
        assert!(plain_path(&"/a".repeat(10_000)).len() < 220);
    }
}
