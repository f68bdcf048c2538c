use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Method;
#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

use super::Admission;
use crate::key::KeyId;

/// Reasons for a failure that no layer inside of the recorder has given.
pub(crate) const BODY_BROKEN: &str = "body_broken";
pub(crate) const NO_RESPONSE: &str = "no_answer";
pub(crate) const STATUS_4XX: &str = "status_4xx";
pub(crate) const STATUS_5XX: &str = "status_5xx";

/// One request, recorded at the end of its response.
///
/// The recorder writes it, and journal, stores, reports and the admin API take it as it is. In JSON it has
/// the members of a request in the admin API. Binary formats have times in Unix milliseconds, durations in
/// microseconds, and the fields in this order: journals that were written before a field was appended at
/// the end read it as zero or `None`.
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct UsageEvent {
    /// Id of the key that the request was made with, or else of the subject of its quota; `null` if neither is
    /// known.
    #[cfg_attr(feature = "serde", serde(rename = "id"))]
    pub key_id: Option<KeyId>,
    /// Time of receipt.
    #[cfg_attr(feature = "serde", serde(with = "time"))]
    pub at: SystemTime,
    /// The `x-request-id` of the response, or else of the request, if it is 1 to 128 visible characters.
    pub request_id: Option<String>,
    /// Method of the request.
    #[cfg_attr(feature = "serde", serde(with = "method"))]
    pub method: Method,
    /// Path of the request, without its query. Serialised and stored, it keeps only the segments that
    /// are plain words, as any other may be a key.
    #[cfg_attr(feature = "serde", serde(serialize_with = "serialize_path"))]
    pub path: String,
    /// Status of the response; `null` if there was none.
    pub status: Option<u16>,
    /// How the request ended.
    pub outcome: RequestOutcome,
    /// The code of the rejection, or of what went wrong upstream.
    pub code: Option<Cow<'static, str>>,
    /// Units charged for the request, after refunds.
    pub units: u32,
    /// Whether a unit was refunded.
    pub refunded: bool,
    /// Model named in the request.
    #[cfg_attr(feature = "serde", serde(rename = "model_asked"))]
    pub requested_model: Option<String>,
    /// Model named in the response.
    pub model: Option<String>,
    /// Tokens reported in the response; `null` if they are not known.
    pub tokens: Option<Tokens>,
    /// Bytes of the request body that were received.
    pub bytes_in: u64,
    /// Bytes of the response body that were sent.
    pub bytes_out: u64,
    /// Time from receipt to the head of the response.
    #[cfg_attr(feature = "serde", serde(rename = "time_to_head_ms", with = "milliseconds"))]
    pub time_to_head: Option<Duration>,
    /// Time from receipt to the first bytes of the response body.
    #[cfg_attr(feature = "serde", serde(rename = "time_to_first_byte_ms", with = "milliseconds"))]
    pub time_to_first_byte: Option<Duration>,
    /// Time from receipt to the end of the response body; `null` if it is not known.
    #[cfg_attr(feature = "serde", serde(rename = "duration_ms", with = "milliseconds"))]
    pub duration: Option<Duration>,
    /// The request on record in the quota's store, if a quota admitted it and its store keeps such a
    /// record. Not serialised.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub admission: Option<Admission>,
}

impl UsageEvent {
    /// Creates the event of a request that was received at `at` and has no response yet.
    pub fn new(at: SystemTime) -> Self {
        Self {
            key_id: None,
            at,
            request_id: None,
            method: Method::default(),
            path: String::new(),
            status: None,
            outcome: RequestOutcome::ClientGone,
            code: None,
            units: 0,
            refunded: false,
            requested_model: None,
            model: None,
            tokens: None,
            bytes_in: 0,
            bytes_out: 0,
            time_to_head: None,
            time_to_first_byte: None,
            duration: None,
            admission: None,
        }
    }

    /// Returns why the request did not succeed, as metrics and logs name it: the code, or else what was
    /// wrong with the response, or how far it had come when the client left.
    pub fn reason(&self) -> Option<&str> {
        let code = self.code.as_deref();
        match (self.outcome, self.status) {
            (RequestOutcome::Succeeded, _) => None,
            (RequestOutcome::Rejected, _) => code,
            (RequestOutcome::ClientGone, Some(_)) if code.is_none() => Some("in_body"),
            (RequestOutcome::ClientGone, _) => Some("before_head"),
            (RequestOutcome::Failed, status) => Some(code.unwrap_or(match status {
                None => NO_RESPONSE,
                Some(400..=499) => STATUS_4XX,
                Some(500..) => STATUS_5XX,
                Some(_) => BODY_BROKEN,
            })),
        }
    }
}

/// Shows the path as it is serialised, as it may hold a key.
impl fmt::Debug for UsageEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
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
        } = self;
        f.debug_struct("UsageEvent")
            .field("key_id", key_id)
            .field("at", at)
            .field("request_id", request_id)
            .field("method", method)
            .field("path", &plain_path(path))
            .field("status", status)
            .field("outcome", outcome)
            .field("code", code)
            .field("units", units)
            .field("refunded", refunded)
            .field("requested_model", requested_model)
            .field("model", model)
            .field("tokens", tokens)
            .field("bytes_in", bytes_in)
            .field("bytes_out", bytes_out)
            .field("time_to_head", time_to_head)
            .field("time_to_first_byte", time_to_first_byte)
            .field("duration", duration)
            .finish_non_exhaustive()
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum RequestOutcome {
    /// The whole response was sent, and its status is not an error.
    Succeeded,
    /// The upstream failed before or within its response, or responded with an error status.
    Failed,
    /// The client left before the end of the response.
    ClientGone,
    /// A layer rejected the request.
    Rejected,
}

impl RequestOutcome {
    /// All outcomes.
    pub(crate) const ALL: [Self; 4] =
        [Self::Succeeded, Self::Failed, Self::ClientGone, Self::Rejected];

    /// Returns the stable name used in logs, metrics and stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::ClientGone => "client_gone",
            Self::Rejected => "rejected",
        }
    }

    /// Returns the outcome with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name)
    }
}

/// Number of tokens that a response reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct Tokens {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Tokens of the completion.
    pub completion: u64,
    /// Total, as reported.
    pub total: u64,
    /// Prompt tokens that were read from the upstream's cache; `null` if they are not reported.
    pub cached: Option<u64>,
    /// Completion tokens spent on reasoning; `null` if they are not reported.
    pub reasoning: Option<u64>,
}

impl Tokens {
    /// Maximum number of tokens of one response. A larger figure is not one that anybody was billed for.
    #[cfg(any(feature = "engine", all(feature = "openai", feature = "usage")))]
    pub(crate) const MAX: u64 = 1_000_000_000_000;

    /// Creates a count without cached and reasoning tokens.
    pub fn new(prompt: u64, completion: u64, total: u64) -> Self {
        Self { prompt, completion, total, cached: None, reasoning: None }
    }

    /// Reduces figures that are larger than the maximum to it, so that a store can sum them up.
    #[cfg(feature = "engine")]
    pub(crate) fn bounded(self) -> Self {
        let Self { prompt, completion, total, cached, reasoning } = self;
        let bounded = |figure: u64| figure.min(Self::MAX);
        Self {
            prompt: bounded(prompt),
            completion: bounded(completion),
            total: bounded(total),
            cached: cached.map(bounded),
            reasoning: reasoning.map(bounded),
        }
    }
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.prompt = self.prompt.saturating_add(other.prompt);
        self.completion = self.completion.saturating_add(other.completion);
        self.total = self.total.saturating_add(other.total);
        add_known(&mut self.cached, other.cached);
        add_known(&mut self.reasoning, other.reasoning);
    }
}

fn add_known(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or_default().saturating_add(more));
    }
}

/// Keeps usage events.
pub trait UsageSink: Send + Sync + 'static {
    /// Records the event of a request that has ended. Called at the end of the response body, also
    /// from `drop`: it must not block.
    fn record(&self, event: UsageEvent);

    /// Called by each recorder when it is created, before any request.
    ///
    /// A store that also admits requests then counts those as failed that have no event yet when the process
    /// ends. A sink that passes events on to another one passes on this call, too.
    fn expect_events(&self) {}
}

impl<T: UsageSink + ?Sized> UsageSink for Arc<T> {
    fn record(&self, event: UsageEvent) {
        (**self).record(event)
    }

    fn expect_events(&self) {
        (**self).expect_events()
    }
}

/// Returns a path for logs and tables: `…` replaces every segment that is not a plain word, since a path
/// may hold a key by design or by mistake, and what comes after the first 200 bytes. A path that was
/// reduced already stays as it is.
pub fn plain_path(path: &str) -> String {
    if has_plain_words(path) {
        return path.to_owned();
    }
    let is_plain = |segment: &str| {
        // The end of a path that was cut.
        let word = segment.trim_end_matches('…');
        segment == "v1" || word.len() <= MAX_WORD_LEN && word.bytes().all(is_in_word)
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

/// Returns whether a short path has plain words only, as nearly all do.
fn has_plain_words(path: &str) -> bool {
    let words = path.strip_prefix("/v1").filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut word_len = 0;
    path.len() <= 200
        && words.unwrap_or(path).bytes().all(|byte| {
            word_len = if byte == b'/' { 0 } else { word_len + 1 };
            word_len <= MAX_WORD_LEN && (byte == b'/' || is_in_word(byte))
        })
}

/// Maximum length of a plain word.
const MAX_WORD_LEN: usize = 16;

fn is_in_word(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte == b'_'
}

#[cfg(feature = "serde")]
fn serialize_path<S: serde::Serializer>(path: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&plain_path(path))
}

/// A method by its name.
#[cfg(feature = "serde")]
mod method {
    use std::borrow::Cow;

    use http::Method;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(method: &Method, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(method.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Method, D::Error> {
        Cow::<str>::deserialize(from)?.parse().map_err(Error::custom)
    }
}

/// A time in RFC 3339 where people read it, in Unix milliseconds otherwise.
#[cfg(feature = "serde")]
mod time {
    use std::{borrow::Cow, time::SystemTime};

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::clock::{from_unix_millis, parse_timestamp, rfc3339, unix_millis};

    pub(super) fn serialize<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.serialize_str(&rfc3339(*at))
        } else {
            unix_millis(*at).serialize(to)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        if !from.is_human_readable() {
            return i64::deserialize(from).map(from_unix_millis);
        }
        let text = Cow::<str>::deserialize(from)?;
        parse_timestamp(&text).ok_or_else(|| Error::custom("not a time in RFC 3339"))
    }
}

/// A duration in milliseconds, to the microsecond, where people read it, in microseconds otherwise.
#[cfg(feature = "serde")]
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let micros = time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        if to.is_human_readable() {
            micros.map(|micros| micros as f64 / 1000.0).serialize(to)
        } else {
            micros.serialize(to)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        if !from.is_human_readable() {
            return Ok(Option::deserialize(from)?.map(Duration::from_micros));
        }
        let millis: Option<f64> = Option::deserialize(from)?;
        let time = millis.map(|millis| Duration::try_from_secs_f64(millis / 1000.0));
        time.transpose().map_err(Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_of_an_event_has_no_key_of_its_path() {
        let mut event = UsageEvent::new(SystemTime::UNIX_EPOCH);
        event.path = "/v1/trial-alice-20261122-x7Qp".to_owned();
        assert!(!format!("{event:?}").contains("alice"));
    }

    #[test]
    fn no_key_is_in_a_plain_path() {
        for (path, plain) in [
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/models/gpt-4.1", "/v1/models/…"),
            ("/v1/trial-alice-20261122-x7Qp", "/v1/…"),
            ("/v1", "/v1"),
            ("/v1/audio/v1/abcdefghijklmnop", "/v1/audio/v1/abcdefghijklmnop"),
            ("/v1beta/abcdefghijklmnopq/x", "/…/…/x"),
            ("/v1/abcdefghijklmnopq/x", "/v1/…/x"),
            ("/v12", "/…"),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(plain_path(path), plain);
        }
    }

    #[test]
    fn a_reduced_path_is_short_and_stays_as_it_is() {
        for path in ["/v1/models/gpt-4.1", &"/a".repeat(10_000), &"/abcdef/G".repeat(99), "/v1"] {
            let plain = plain_path(path);
            assert!(plain.len() < 220, "{plain}");
            assert_eq!(plain_path(&plain), plain);
        }
    }
}
