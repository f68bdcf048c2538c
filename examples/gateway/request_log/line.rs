use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{Method, Request, response::Parts};
use tower_http::request_id::RequestId;
use tower_quota::{
    body::BodyEnd,
    error::{Rejected, UpstreamFault},
    key::{KeyId, KeyRecord},
    store::{Outcome, Tokens, UsageEvent},
};

use crate::route::Route;

/// What is known of a request. Logged when it is dropped.
pub(super) struct Line {
    began: Instant,
    id: Option<RequestId>,
    method: Method,
    path: String,
    /// Asked again and again by machines, and told only when something is wrong with it.
    routine: bool,
    facts: Mutex<Facts>,
}

struct Facts {
    status: Option<u16>,
    key_id: Option<KeyId>,
    outcome: Outcome,
    reason: Option<&'static str>,
    time_to_head: Option<Duration>,
    duration: Option<Duration>,
    bytes_out: u64,
    usage: Option<Usage>,
}

/// What the usage recorder adds.
#[derive(Clone, Copy)]
struct Usage {
    units: u32,
    refunded: bool,
    bytes_in: u64,
    tokens: Option<Tokens>,
}

impl Line {
    pub(super) fn begin<B>(request: &Request<B>) -> Self {
        let path = request.uri().path();
        let route = Route::of(path);
        Self {
            began: Instant::now(),
            id: request.extensions().get::<RequestId>().cloned(),
            method: request.method().clone(),
            path: logged_path(path),
            routine: matches!(route, Some(Route::Health | Route::Ready | Route::Metrics)),
            facts: Mutex::new(Facts {
                status: None,
                key_id: None,
                outcome: Outcome::ClientGone,
                reason: None,
                time_to_head: None,
                duration: None,
                bytes_out: 0,
                usage: None,
            }),
        }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_head(&self, head: &Parts) {
        let mut facts = self.facts();
        facts.status = Some(head.status.as_u16());
        facts.time_to_head = Some(self.began.elapsed());
        if let Some(record) = head.extensions.get::<Arc<KeyRecord>>() {
            facts.key_id = Some(record.id.clone());
        }
        let rejected = head.extensions.get::<Rejected>().map(|rejected| rejected.code);
        let fault = head.extensions.get::<UpstreamFault>().map(|fault| fault.code());
        facts.reason = fault.or(rejected);
        // The ledger's word stands, where it has spoken.
        if facts.usage.is_none() {
            facts.outcome = match rejected {
                Some(code) if fault.is_none() => Outcome::Rejected(code),
                None if head.status.is_success() || head.status.is_redirection() => {
                    Outcome::Succeeded
                }
                _ => Outcome::Failed,
            };
        }
    }

    pub(super) fn note_end(&self, end: BodyEnd, bytes: u64) {
        let mut facts = self.facts();
        facts.duration = Some(self.began.elapsed());
        facts.bytes_out = bytes;
        if facts.usage.is_none() {
            match end {
                BodyEnd::Complete => {}
                BodyEnd::Failed => facts.outcome = Outcome::Failed,
                BodyEnd::Abandoned => facts.outcome = Outcome::ClientGone,
            }
        }
    }

    pub(super) fn note_event(&self, event: &UsageEvent) {
        let &UsageEvent { outcome, units, refunded, bytes_in, tokens, .. } = event;
        let mut facts = self.facts();
        // It heard no answer where somebody outside has made one, as after a panic.
        if event.status.is_some() || facts.status.is_none() {
            facts.outcome = outcome;
            facts.reason = event.reason();
        }
        facts.usage = Some(Usage { units, refunded, bytes_in, tokens });
        if event.key_id.is_some() {
            facts.key_id.clone_from(&event.key_id);
        }
    }
}

/// An event of these fields at either level, which must be known when the program is compiled.
macro_rules! log_at {
    ($routine:expr, $($fields:tt)*) => {
        if $routine {
            tracing::debug!(parent: None, $($fields)*);
        } else {
            tracing::info!(parent: None, $($fields)*);
        }
    };
}

impl Drop for Line {
    fn drop(&mut self) {
        let facts = self.facts.get_mut().unwrap_or_else(PoisonError::into_inner);
        let usage = facts.usage;
        let tokens = usage.and_then(|usage| usage.tokens);
        let is_well = facts.status.is_some_and(|status| status < 400);
        log_at!(
            self.routine && is_well,
            id = self.id.as_ref().and_then(|id| id.header_value().to_str().ok()),
            key_id = facts.key_id.as_ref().map(KeyId::as_str),
            method = self.method.as_str(),
            path = self.path,
            status = facts.status,
            outcome = facts.outcome.as_str(),
            reason = facts.reason,
            time_to_head_ms = facts.time_to_head.map(milliseconds),
            duration_ms = milliseconds(facts.duration.unwrap_or_else(|| self.began.elapsed())),
            bytes_in = usage.map(|usage| usage.bytes_in),
            bytes_out = facts.bytes_out,
            units = usage.map(|usage| usage.units),
            refunded = usage.map(|usage| usage.refunded),
            prompt_tokens = tokens.map(|tokens| tokens.prompt),
            completion_tokens = tokens.map(|tokens| tokens.completion),
            total_tokens = tokens.map(|tokens| tokens.total),
            cached_tokens = tokens.and_then(|tokens| tokens.cached),
            reasoning_tokens = tokens.and_then(|tokens| tokens.reasoning),
            "request"
        );
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// The path for the log. A key may stand in a path by design or by mistake, so whatever is no plain
/// word is left out.
pub(crate) fn logged_path(path: &str) -> String {
    let plain = |segment: &str| {
        segment == "v1"
            || segment.len() <= 16
                && segment.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let shown = path.split('/').map(|segment| if plain(segment) { segment } else { "…" });
    shown.collect::<Vec<_>>().join("/")
}
