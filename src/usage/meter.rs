//! What the recorder tells through the `metrics` facade.

use std::{array, time::Duration};

use super::{RequestOutcome, UsageEvent};
use crate::{
    error::catalog,
    key::looks_like_key,
    metrics::{self, Counter, Family, Gauge, Histogram},
    store::{BODY_BROKEN, NO_ANSWER, STATUS_4XX, STATUS_5XX},
};

/// So many models have names of their own.
const MODELS: usize = 50;
const LONGEST_MODEL: usize = 64;
/// Reasons are part of programs, so these are never used up.
const REASONS: usize = 64;

/// The handles of all that is told of requests.
pub(super) struct Meter {
    in_flight: Gauge,
    succeeded: Counter,
    failed: Family<Counter>,
    /// Before the head, and after it.
    client_gone: [Counter; 2],
    rejected: Family<Counter>,
    charged: Counter,
    refunded: Counter,
    tokens: Family<TokenCounters>,
    tokens_unknown: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    /// In the order of [`RequestOutcome::ALL`].
    duration: [Histogram; 4],
    /// As above, but for rejections: no upstream has sent their heads.
    time_to_head: [Histogram; 3],
    time_to_first_byte: Histogram,
}

struct TokenCounters {
    prompt: Counter,
    completion: Counter,
    cached: Counter,
    reasoning: Counter,
}

/// One request that is under way.
pub(super) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Meter {
    pub(super) fn new() -> Self {
        let failed = Family::new(REASONS, |reason| requests(RequestOutcome::Failed, reason));
        let others = [BODY_BROKEN, NO_ANSWER, STATUS_4XX, STATUS_5XX];
        for reason in catalog::UPSTREAM.iter().map(|code| code.code()).chain(others) {
            failed.get(reason);
        }
        let rejected = Family::new(REASONS, |reason| requests(RequestOutcome::Rejected, reason));
        for code in catalog::LAYERS {
            rejected.get(code.code());
        }
        let gone = |phase| requests(RequestOutcome::ClientGone, phase);
        let by_outcome = |metric: metrics::Metric, outcome: RequestOutcome| {
            metric.histogram(&[("outcome", outcome.as_str())])
        };
        Self {
            in_flight: metrics::IN_FLIGHT.gauge(&[]),
            succeeded: requests(RequestOutcome::Succeeded, "none"),
            failed,
            client_gone: [gone("before_head"), gone("in_body")],
            rejected,
            charged: metrics::UNITS_CHARGED.counter(&[]),
            refunded: metrics::UNITS_REFUNDED.counter(&[]),
            tokens: Family::new(MODELS, TokenCounters::of),
            tokens_unknown: metrics::TOKENS_UNKNOWN.counter(&[]),
            bytes_in: metrics::BYTES_IN.counter(&[]),
            bytes_out: metrics::BYTES_OUT.counter(&[]),
            duration: array::from_fn(|at| by_outcome(metrics::DURATION, RequestOutcome::ALL[at])),
            time_to_head: array::from_fn(|at| {
                by_outcome(metrics::TIME_TO_HEAD, RequestOutcome::ALL[at])
            }),
            time_to_first_byte: metrics::TIME_TO_FIRST_BYTE.histogram(&[]),
        }
    }

    /// Counts a request as under way as long as this lives.
    pub(super) fn enter(&self) -> InFlight {
        self.in_flight.increment(1.0);
        InFlight(self.in_flight.clone())
    }

    /// Counts a request that has ended.
    pub(super) fn count(&self, event: &UsageEvent) {
        self.requests(event).increment(1);
        self.charged.increment(event.units.into());
        self.refunded.increment(event.refunded.into());
        self.bytes_in.increment(event.bytes_in);
        self.bytes_out.increment(event.bytes_out);
        let at = event.outcome as usize;
        if let Some(duration) = event.duration {
            self.duration[at].record(duration);
        }
        if let (Some(time), Some(histogram)) = (event.time_to_head, self.time_to_head.get(at)) {
            histogram.record(time);
            self.count_first_byte(event.time_to_first_byte);
        }
        match &event.tokens {
            Some(tokens) => {
                let counters = self.tokens_of(event.model.as_deref());
                counters.prompt.increment(tokens.prompt);
                counters.completion.increment(tokens.completion);
                counters.cached.increment(tokens.cached.unwrap_or_default());
                counters.reasoning.increment(tokens.reasoning.unwrap_or_default());
            }
            None if event.outcome == RequestOutcome::Succeeded => self.tokens_unknown.increment(1),
            None => {}
        }
    }

    fn count_first_byte(&self, time: Option<Duration>) {
        if let Some(time) = time {
            self.time_to_first_byte.record(time);
        }
    }

    fn requests(&self, event: &UsageEvent) -> &Counter {
        match event.outcome {
            RequestOutcome::Succeeded => &self.succeeded,
            RequestOutcome::Failed => self.failed.get(event.reason().unwrap_or_default()),
            RequestOutcome::ClientGone => {
                &self.client_gone[usize::from(event.status.is_some() && event.code.is_none())]
            }
            RequestOutcome::Rejected => self.rejected.get(event.reason().unwrap_or_default()),
        }
    }

    fn tokens_of(&self, model: Option<&str>) -> &TokenCounters {
        let model = model.unwrap_or("unknown");
        match self.tokens.find(model) {
            Some(known) => known,
            None if is_plain(model) => self.tokens.get(model),
            None => self.tokens.other(),
        }
    }
}

impl TokenCounters {
    fn of(model: &str) -> Self {
        let tokens = |kind| metrics::TOKENS.counter(&[("type", kind), ("model", model)]);
        Self {
            prompt: tokens("prompt"),
            completion: tokens("completion"),
            cached: metrics::TOKENS_CACHED.counter(&[("model", model)]),
            reasoning: metrics::TOKENS_REASONING.counter(&[("model", model)]),
        }
    }
}

fn requests(outcome: RequestOutcome, reason: &str) -> Counter {
    metrics::REQUESTS.counter(&[("outcome", outcome.as_str()), ("reason", reason)])
}

/// Whether an upstream's name for a model may be shown. Some repeat whatever the client has sent,
/// which may be a key.
fn is_plain(model: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@+-".contains(&byte);
    model.len() <= LONGEST_MODEL && model.bytes().all(plain) && !looks_like_key(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_may_be_more_than_names_are_not_shown() {
        for (model, plain) in [
            ("deepseek-chat", true),
            ("meta-llama/Llama-3.1-8B:free", true),
            ("trial-alice-20261122-secret", false),
            ("sk-secret", false),
            ("two words", false),
            ("模型", false),
            (&*"m".repeat(LONGEST_MODEL + 1), false),
        ] {
            assert_eq!(is_plain(model), plain, "{model}");
        }
    }
}
