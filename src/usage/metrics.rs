//! Metrics of requests.

use std::array;

use crate::{
    error::catalog,
    key::looks_like_key,
    metrics::{Counter, Family, Gauge, GaugeGuard, Histogram, Metric, names},
    store::{BODY_BROKEN, NO_RESPONSE, RequestOutcome, STATUS_4XX, STATUS_5XX, UsageEvent},
};

/// Maximum number of models with a label of their own.
const MAX_MODEL_LABELS: usize = 50;
/// Maximum length of a model's name that is used as a label.
const MAX_MODEL_LEN: usize = 64;
/// Maximum number of reasons. They are constants of programs, so there are never more.
const MAX_REASONS: usize = 64;

/// Handles of all metrics of requests.
pub(super) struct Metrics {
    in_flight: Gauge,
    succeeded: Counter,
    failed: Family<Counter>,
    /// Before the head of the response, and after it.
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

impl Metrics {
    pub(super) fn new() -> Self {
        let failed = Family::new(MAX_REASONS, |reason| requests(RequestOutcome::Failed, reason));
        let others = [BODY_BROKEN, NO_RESPONSE, STATUS_4XX, STATUS_5XX];
        for reason in catalog::UPSTREAM.iter().map(|code| code.code()).chain(others) {
            failed.get(reason);
        }
        let rejected =
            Family::new(MAX_REASONS, |reason| requests(RequestOutcome::Rejected, reason));
        for code in catalog::LAYERS {
            rejected.get(code.code());
        }
        let gone = |phase| requests(RequestOutcome::ClientGone, phase);
        let by_outcome = |metric: Metric, outcome: RequestOutcome| {
            metric.histogram(&[("outcome", outcome.as_str())])
        };
        Self {
            in_flight: names::IN_FLIGHT.gauge(&[]),
            succeeded: requests(RequestOutcome::Succeeded, "none"),
            failed,
            client_gone: [gone("before_head"), gone("in_body")],
            rejected,
            charged: names::UNITS_CHARGED.counter(&[]),
            refunded: names::UNITS_REFUNDED.counter(&[]),
            tokens: Family::new(MAX_MODEL_LABELS, TokenCounters::of),
            tokens_unknown: names::TOKENS_UNKNOWN.counter(&[]),
            bytes_in: names::BYTES_IN.counter(&[]),
            bytes_out: names::BYTES_OUT.counter(&[]),
            duration: array::from_fn(|at| by_outcome(names::DURATION, RequestOutcome::ALL[at])),
            time_to_head: array::from_fn(|at| {
                by_outcome(names::TIME_TO_HEAD, RequestOutcome::ALL[at])
            }),
            time_to_first_byte: names::TIME_TO_FIRST_BYTE.histogram(&[]),
        }
    }

    /// Counts a request as in flight.
    pub(super) fn enter(&self) -> GaugeGuard {
        GaugeGuard::new(&self.in_flight)
    }

    /// Records a request that has ended.
    pub(super) fn record(&self, event: &UsageEvent) {
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
            if let Some(time) = event.time_to_first_byte {
                self.time_to_first_byte.record(time);
            }
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
        let tokens = |kind| names::TOKENS.counter(&[("type", kind), ("model", model)]);
        Self {
            prompt: tokens("prompt"),
            completion: tokens("completion"),
            cached: names::TOKENS_CACHED.counter(&[("model", model)]),
            reasoning: names::TOKENS_REASONING.counter(&[("model", model)]),
        }
    }
}

fn requests(outcome: RequestOutcome, reason: &str) -> Counter {
    names::REQUESTS.counter(&[("outcome", outcome.as_str()), ("reason", reason)])
}

/// Returns whether a model's name may be used as a label. Some upstreams repeat any name that the client
/// has sent, and that may be a key.
fn is_plain(model: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@+-".contains(&byte);
    model.len() <= MAX_MODEL_LEN && model.bytes().all(plain) && !looks_like_key(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_may_be_keys_are_not_used_as_labels() {
        for (model, plain) in [
            ("deepseek-chat", true),
            ("meta-llama/Llama-3.1-8B:free", true),
            ("trial-alice-20261122-secret", false),
            ("sk-secret", false),
            ("two words", false),
            ("模型", false),
            (&*"m".repeat(MAX_MODEL_LEN + 1), false),
        ] {
            assert_eq!(is_plain(model), plain, "{model}");
        }
    }
}
