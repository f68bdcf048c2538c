//! The facts of one request and their log line.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderName, HeaderValue, Method, Request, header::AUTHORIZATION, response::Parts};
use tower_http::request_id::RequestId;
use tower_quota::{
    admin::RejectionEntry,
    body::BodyEnd,
    error::{Rejected, UpstreamFault},
    key::KeyId,
    request::RequestContext,
    store::{RequestOutcome, Tokens, UsageEvent, plain_path},
};

use super::Observers;
use crate::route::Route;

/// Headers that carry a key or token.
static CREDENTIALS: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-trial-key"),
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-admin-token"),
];

/// Facts about a request, logged on drop.
pub(super) struct LogLine {
    observers: Observers,
    start: Instant,
    start_time: SystemTime,
    id: Option<RequestId>,
    /// The client's address, if addresses are recorded.
    client: Option<IpAddr>,
    /// The header value that was sent as a key.
    credential: Option<HeaderValue>,
    method: Method,
    path: String,
    /// Whether this is a probe or a scrape, which is logged at `debug` unless it fails.
    is_routine: bool,
    facts: Mutex<Facts>,
}

struct Facts {
    status: Option<u16>,
    key_id: Option<KeyId>,
    outcome: RequestOutcome,
    reason: Option<Cow<'static, str>>,
    time_to_head: Option<Duration>,
    duration: Option<Duration>,
    bytes_out: u64,
    usage: Option<Usage>,
}

/// What the usage recorder reports.
#[derive(Clone, Copy)]
struct Usage {
    units: u32,
    refunded: bool,
    bytes_in: u64,
    tokens: Option<Tokens>,
}

impl LogLine {
    pub(super) fn new<B>(
        request: &Request<B>,
        context: &RequestContext,
        observers: Observers,
    ) -> Self {
        let path = request.uri().path();
        let route = Route::of(path);
        let client = context.client_addr().filter(|_| observers.client_addrs.is_some());
        let credential = CREDENTIALS.iter().find_map(|name| request.headers().get(name));
        Self {
            observers,
            start: Instant::now(),
            start_time: SystemTime::now(),
            client,
            credential: credential.cloned(),
            id: request.extensions().get::<RequestId>().cloned(),
            method: request.method().clone(),
            path: plain_path(path),
            is_routine: matches!(route, Some(Route::Health | Route::Ready | Route::Metrics)),
            facts: Mutex::new(Facts {
                status: None,
                key_id: None,
                outcome: RequestOutcome::ClientGone,
                reason: None,
                time_to_head: None,
                duration: None,
                bytes_out: 0,
                usage: None,
            }),
        }
    }

    fn id(&self) -> Option<&str> {
        self.id.as_ref().and_then(|id| id.header_value().to_str().ok())
    }

    /// Records the request with the observers.
    fn notify_observers(&self, facts: &Facts) {
        let Observers { rejections, client_addrs } = &self.observers;
        match (&facts.key_id, facts.status, facts.outcome) {
            (Some(key_id), ..) => {
                if let (Some(client_addrs), Some(client)) = (client_addrs, self.client) {
                    client_addrs.record(key_id, client);
                }
            }
            (None, Some(status), RequestOutcome::Rejected) => rejections.record(
                RejectionEntry::new(self.start_time, self.id().unwrap_or_default(), status)
                    .request(self.method.clone(), &self.path)
                    .code(facts.reason.clone().unwrap_or_default())
                    .credential(&self.credential)
                    .client_addr(self.client),
            ),
            _ => {}
        }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record_head(&self, head: &Parts, context: &RequestContext) {
        let mut facts = self.facts();
        facts.status = Some(head.status.as_u16());
        facts.time_to_head = Some(self.start.elapsed());
        if let Some(key_id) = context.key_id() {
            facts.key_id = Some(key_id);
        }
        let rejected = head.extensions.get::<Rejected>().map(|rejected| rejected.code);
        let fault = head.extensions.get::<UpstreamFault>().map(|fault| fault.code());
        facts.reason = fault.or(rejected).map(Cow::Borrowed);
        // The usage recorder's outcome takes precedence.
        if facts.usage.is_none() {
            facts.outcome = match rejected {
                Some(_) if fault.is_none() => RequestOutcome::Rejected,
                None if head.status.is_success() || head.status.is_redirection() => {
                    RequestOutcome::Succeeded
                }
                _ => RequestOutcome::Failed,
            };
        }
    }

    pub(super) fn record_end(&self, end: BodyEnd, bytes: u64) {
        let mut facts = self.facts();
        facts.duration = Some(self.start.elapsed());
        facts.bytes_out = bytes;
        if facts.usage.is_none() {
            match end {
                BodyEnd::Complete => {}
                BodyEnd::Failed => facts.outcome = RequestOutcome::Failed,
                BodyEnd::Abandoned => facts.outcome = RequestOutcome::ClientGone,
            }
        }
    }

    pub(super) fn record_event(&self, event: &UsageEvent) {
        let &UsageEvent { outcome, units, refunded, bytes_in, tokens, .. } = event;
        let mut facts = self.facts();
        // The recorder sees no status if an outer layer made the response, as after a panic.
        if event.status.is_some() || facts.status.is_none() {
            facts.outcome = outcome;
            facts.reason = event.reason().map(|reason| reason.to_owned().into());
        }
        facts.usage = Some(Usage { units, refunded, bytes_in, tokens });
        if event.key_id.is_some() {
            facts.key_id.clone_from(&event.key_id);
        }
    }
}

/// Logs an event at `debug` or `info`. A macro, as `tracing` needs the level at compile time.
macro_rules! log_event {
    ($is_debug:expr, $($fields:tt)*) => {
        if $is_debug {
            tracing::debug!(parent: None, $($fields)*);
        } else {
            tracing::info!(parent: None, $($fields)*);
        }
    };
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let facts = self.facts();
        self.notify_observers(&facts);
        let usage = facts.usage;
        let tokens = usage.and_then(|usage| usage.tokens);
        let is_success = facts.status.is_some_and(|status| status < 400);
        log_event!(
            self.is_routine && is_success,
            id = self.id(),
            client_addr = self.client.map(tracing::field::display),
            key_id = facts.key_id.as_ref().map(KeyId::as_str),
            method = self.method.as_str(),
            path = self.path,
            status = facts.status,
            outcome = facts.outcome.as_str(),
            reason = facts.reason.as_deref(),
            time_to_head_ms = facts.time_to_head.map(milliseconds),
            duration_ms = milliseconds(facts.duration.unwrap_or_else(|| self.start.elapsed())),
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
