//! Single requests, as a store keeps them.

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

use crate::{
    key::KeyId,
    store::{RequestOutcome, UsageEvent, plain_path},
};

/// The event of a request of a known key, as a store keeps it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct RequestRecord {
    /// Number of the record; later ones have larger numbers.
    pub number: u64,
    /// The event, its path reduced by [`plain_path`] and without its admission.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub event: UsageEvent,
}

impl RequestRecord {
    /// Creates the record of an event; `None` if the key is not known.
    pub fn new(number: u64, event: UsageEvent) -> Option<Self> {
        event.key_id.as_ref()?;
        let path = plain_path(&event.path);
        Some(Self { number, event: UsageEvent { path, admission: None, ..event } })
    }
}

/// A query for single requests, the latest first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestQuery {
    /// Only requests of this key.
    pub key_id: Option<KeyId>,
    /// Only requests with this `x-request-id`.
    pub request_id: Option<String>,
    /// Only requests that did not succeed.
    pub failed_only: bool,
    /// Only records with smaller numbers.
    pub before: Option<u64>,
    /// Maximum number of records.
    pub limit: usize,
}

impl RequestQuery {
    /// Creates a query for the latest `limit` requests.
    pub fn latest(limit: usize) -> Self {
        Self { key_id: None, request_id: None, failed_only: false, before: None, limit }
    }

    /// Restricts the query to requests of this key.
    #[must_use]
    pub fn key(self, key_id: KeyId) -> Self {
        Self { key_id: Some(key_id), ..self }
    }

    /// Restricts the query to requests with this `x-request-id`.
    #[must_use]
    pub fn request_id(self, request_id: String) -> Self {
        Self { request_id: Some(request_id), ..self }
    }

    /// Restricts the query to requests that did not succeed.
    #[must_use]
    pub fn failed_only(self) -> Self {
        Self { failed_only: true, ..self }
    }

    /// Restricts the query to records with smaller numbers than this.
    #[must_use]
    pub fn before(self, number: u64) -> Self {
        Self { before: Some(number), ..self }
    }

    /// Whether the query selects this record, regardless of its limit.
    pub fn matches(&self, record: &RequestRecord) -> bool {
        let RequestRecord { number, event } = record;
        (self.key_id.is_none() || self.key_id == event.key_id)
            && (self.request_id.is_none() || self.request_id == event.request_id)
            && self.before.is_none_or(|before| *number < before)
            && !(self.failed_only && event.outcome == RequestOutcome::Succeeded)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::store::Tokens;

    #[test]
    fn a_record_has_the_members_of_the_admin_api() {
        let mut event = UsageEvent::new(SystemTime::UNIX_EPOCH + Duration::from_millis(1_500));
        let record = RequestRecord::new(7, event.clone());
        assert_eq!(record, None, "the key is not known");
        event.key_id = Some("key_1".into());
        event.path = "/v1/models/gpt-4.1".into();
        let least = json!({
            "number": 7, "id": "key_1", "at": "1970-01-01T00:00:01Z", "request_id": null,
            "method": "GET", "path": "/v1/models/…", "status": null, "outcome": "client_gone",
            "code": null, "units": 0, "refunded": false, "model_asked": null, "model": null,
            "tokens": null, "bytes_in": 0, "bytes_out": 0, "time_to_head_ms": null,
            "time_to_first_byte_ms": null, "duration_ms": null,
        });
        assert_eq!(as_json(event.clone()), least);
        event.request_id = Some("5b1c".into());
        event.method = Method::POST;
        event.status = Some(429);
        event.outcome = RequestOutcome::Rejected;
        event.code = Some("insufficient_quota".into());
        event.units = 1;
        event.refunded = true;
        event.requested_model = Some("a".into());
        event.model = Some("b".into());
        event.tokens = Some(Tokens { cached: Some(4), ..Tokens::new(1, 2, 3) });
        event.bytes_in = 8;
        event.bytes_out = 9;
        event.time_to_head = Some(Duration::from_nanos(1_234_567));
        event.time_to_first_byte = Some(Duration::from_millis(2));
        event.duration = Some(Duration::from_millis(3));
        let full = json!({
            "number": 7, "id": "key_1", "at": "1970-01-01T00:00:01Z", "request_id": "5b1c",
            "method": "POST", "path": "/v1/models/…", "status": 429, "outcome": "rejected",
            "code": "insufficient_quota", "units": 1, "refunded": true, "model_asked": "a",
            "model": "b",
            "tokens": {"prompt": 1, "completion": 2, "total": 3, "cached": 4, "reasoning": null},
            "bytes_in": 8, "bytes_out": 9, "time_to_head_ms": 1.234, "time_to_first_byte_ms": 2.0,
            "duration_ms": 3.0,
        });
        assert_eq!(as_json(event), full);
    }

    /// The record in JSON, which is read back as it was written.
    fn as_json(event: UsageEvent) -> Value {
        let json = serde_json::to_value(RequestRecord::new(7, event).unwrap()).unwrap();
        let read: RequestRecord = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), json);
        json
    }
}
