use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::Admission;
use crate::key::KeyId;

/// Why a request has failed where no layer inside has said it.
pub(crate) const BODY_BROKEN: &str = "body_broken";
pub(crate) const NO_ANSWER: &str = "no_answer";
pub(crate) const STATUS_4XX: &str = "status_4xx";
pub(crate) const STATUS_5XX: &str = "status_5xx";

/// One request, told at its true end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UsageEvent {
    /// Whose request it was, if the key was recognised.
    pub key_id: Option<KeyId>,
    /// When it was received.
    pub at: SystemTime,
    /// The id by which the request is known: its `x-request-id`, if that is 1 to 128 visible
    /// characters.
    pub request_id: Option<String>,
    /// The request's method.
    pub method: http::Method,
    /// The request's path, without its query.
    pub path: String,
    /// The answer's status; `None` if there was none.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// Units charged for it, after refunds.
    pub units: u32,
    /// Whether a unit was given back.
    pub refunded: bool,
    /// What was wrong with the upstream, if a layer inside has said so: the code of an
    /// [`UpstreamFault`](crate::error::UpstreamFault).
    pub fault: Option<&'static str>,
    /// The model that the request names.
    pub model_asked: Option<String>,
    /// The model that the answer names.
    pub model: Option<String>,
    /// The tokens that the answer tells; `None` if it tells none.
    pub tokens: Option<Tokens>,
    /// Bytes of the request's body that were taken.
    pub bytes_in: u64,
    /// Bytes of the answer's body that were handed on.
    pub bytes_out: u64,
    /// From receipt to the answer's head.
    pub time_to_head: Option<Duration>,
    /// From receipt to the first bytes of the answer's body.
    pub time_to_first_byte: Option<Duration>,
    /// From receipt to the body's end.
    pub duration: Duration,
    /// The request as the quota's store has it on record, if a quota has admitted it and its store
    /// tells.
    pub admission: Option<Admission>,
}

impl UsageEvent {
    /// The event of a request that was received at this time and that nobody has answered.
    pub fn new(at: SystemTime) -> Self {
        Self {
            key_id: None,
            at,
            request_id: None,
            method: http::Method::default(),
            path: String::new(),
            status: None,
            outcome: Outcome::ClientGone,
            units: 0,
            refunded: false,
            fault: None,
            model_asked: None,
            model: None,
            tokens: None,
            bytes_in: 0,
            bytes_out: 0,
            time_to_head: None,
            time_to_first_byte: None,
            duration: Duration::ZERO,
            admission: None,
        }
    }
}

impl UsageEvent {
    /// Why it did not succeed, as metrics and logs say it: why it was refused, what was wrong with the
    /// upstream or with what it answered, or how far its answer had come when the client left.
    pub fn reason(&self) -> Option<&'static str> {
        match (self.outcome, self.fault, self.status) {
            (Outcome::Succeeded, ..) => None,
            (Outcome::Rejected(reason), ..) => Some(reason),
            (Outcome::ClientGone, None, Some(_)) => Some("in_body"),
            (Outcome::ClientGone, ..) => Some("before_head"),
            (Outcome::Failed, Some(fault), _) => Some(fault),
            (Outcome::Failed, None, None) => Some(NO_ANSWER),
            (Outcome::Failed, None, Some(400..=499)) => Some(STATUS_4XX),
            (Outcome::Failed, None, Some(500..)) => Some(STATUS_5XX),
            (Outcome::Failed, None, Some(_)) => Some(BODY_BROKEN),
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The whole answer was handed on, and its status tells of no failure.
    Succeeded,
    /// The upstream failed, before or within its answer, or answered with an error status.
    Failed,
    /// The client left before the end.
    ClientGone,
    /// A layer refused it, for this reason.
    Rejected(&'static str),
}

impl Outcome {
    /// Why a layer refused the request, if one did.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Rejected(reason) => Some(reason),
            _ => None,
        }
    }

    /// The stable name used in logs and stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::ClientGone => "client_gone",
            Self::Rejected(_) => "rejected",
        }
    }
}

/// Tokens that an answer tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tokens {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Tokens of the completion.
    pub completion: u64,
    /// Their total, as told.
    pub total: u64,
    /// Of the prompt's, those that the upstream had in its cache; `None` if it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached: Option<u64>,
    /// Of the completion's, those that the model thought with; `None` if the upstream does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
}

impl Tokens {
    /// Tokens of these numbers, of which no more is known.
    pub fn new(prompt: u64, completion: u64, total: u64) -> Self {
        Self { prompt, completion, total, cached: None, reasoning: None }
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

/// Sums up what is known.
fn add_known(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or_default().saturating_add(more));
    }
}

/// Keeps usage events.
pub trait UsageSink: Send + Sync + 'static {
    /// Takes the event of a finished request. Called at a body's end, also from `drop`: it must
    /// not block.
    fn record(&self, event: UsageEvent);
}

impl<T: UsageSink + ?Sized> UsageSink for Arc<T> {
    fn record(&self, event: UsageEvent) {
        (**self).record(event)
    }
}

/// Number of models that are told apart of a key and day; an upstream may echo whatever name it is asked
/// for.
#[cfg(any(feature = "memory", feature = "sqlite"))]
pub(crate) const MAX_MODELS: usize = 64;
/// The model under which all others of a key and day are summed up.
#[cfg(any(feature = "memory", feature = "sqlite"))]
pub(crate) const OTHER_MODELS: &str = "other";

/// What was used, by key, day or model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UsageFigures {
    /// Requests that were admitted.
    pub requests: u64,
    /// Of these, ended well.
    pub succeeded: u64,
    /// Of these, failed or left by the client.
    pub failed: u64,
    /// Of these, whose unit was given back.
    pub refunded: u64,
    /// Requests that were refused; not among `requests`.
    pub rejected: u64,
    /// Of those that ended well, whose answers told no tokens.
    pub tokens_unknown: u64,
    /// Tokens that the answers told.
    pub tokens: Tokens,
}

impl std::ops::AddAssign for UsageFigures {
    fn add_assign(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.succeeded = self.succeeded.saturating_add(other.succeeded);
        self.failed = self.failed.saturating_add(other.failed);
        self.refunded = self.refunded.saturating_add(other.refunded);
        self.rejected = self.rejected.saturating_add(other.rejected);
        self.tokens_unknown = self.tokens_unknown.saturating_add(other.tokens_unknown);
        self.tokens += other.tokens;
    }
}

impl From<&UsageEvent> for UsageFigures {
    fn from(event: &UsageEvent) -> Self {
        let admitted = !matches!(event.outcome, Outcome::Rejected(_));
        let succeeded = event.outcome == Outcome::Succeeded;
        Self {
            requests: admitted.into(),
            succeeded: succeeded.into(),
            failed: matches!(event.outcome, Outcome::Failed | Outcome::ClientGone).into(),
            refunded: (admitted && event.refunded).into(),
            rejected: (!admitted).into(),
            tokens_unknown: (succeeded && event.tokens.is_none()).into(),
            tokens: event.tokens.unwrap_or_default(),
        }
    }
}
