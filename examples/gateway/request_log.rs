//! One line of the log for each request, when the request has ended.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderValue, Method, Request, response::Parts};
use tower_quota::{
    admin::{ClientAddrs, RejectionEntry, RejectionLog},
    body::BodyEnd,
    error::{Rejected, UpstreamFault},
    key::KeyId,
    request::RequestContext,
    store::{RequestOutcome, Tokens, UsageEvent, plain_path},
};
use tracing::{Level, enabled};

use crate::{logging::Log, route::Route};

/// What records requests.
pub(crate) struct Observers {
    pub(crate) log: Log,
    /// Records rejected requests without a known key.
    pub(crate) rejections: RejectionLog,
    /// Counts the addresses from which each key is used. If `None`, no address is recorded or logged.
    pub(crate) client_addrs: Option<ClientAddrs>,
}

/// The facts about a request, logged on drop.
///
/// They are shared, so the last owner logs them: the response body, or, if the client has gone, the usage recorder
/// inside of it, which may still have something to record.
pub(crate) struct RequestFacts {
    observers: Arc<Observers>,
    start: Instant,
    start_time: SystemTime,
    id: HeaderValue,
    /// The client's address, if addresses are recorded.
    client: Option<IpAddr>,
    method: Method,
    // Copied, as what is shared with the request keeps the whole buffer into which it was read.
    path: Box<str>,
    facts: Mutex<Facts>,
}

struct Facts {
    /// The header value that was sent as a key. `None` once the request is known not to be rejected.
    credential: Option<HeaderValue>,
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

impl RequestFacts {
    /// Begins with a request that has just been received.
    pub(crate) fn new<B>(
        request: &Request<B>,
        id: HeaderValue,
        credential: Option<HeaderValue>,
        client: Option<IpAddr>,
        observers: Arc<Observers>,
    ) -> Self {
        Self {
            start: Instant::now(),
            start_time: SystemTime::now(),
            id,
            client: client.filter(|_| observers.client_addrs.is_some()),
            method: request.method().clone(),
            path: request.uri().path().into(),
            observers,
            facts: Mutex::new(Facts {
                credential,
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

    pub(crate) fn id(&self) -> &HeaderValue {
        &self.id
    }

    fn id_text(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    /// Returns the level of the line: probes and scrapes are routine, unless they fail.
    fn level(&self, status: Option<u16>) -> Level {
        let is_success = status.is_some_and(|status| status < 400);
        match Route::of(&self.path) {
            Some(Route::Health | Route::Ready | Route::Metrics) if is_success => Level::DEBUG,
            _ => Level::INFO,
        }
    }

    /// Records the request with the observers.
    fn notify_observers(&self, facts: &Facts) {
        let Observers { rejections, client_addrs, .. } = &*self.observers;
        match (&facts.key_id, facts.status, facts.outcome) {
            (Some(key_id), ..) => {
                if let (Some(client_addrs), Some(client)) = (client_addrs, self.client) {
                    client_addrs.record(key_id, client);
                }
            }
            (None, Some(status), RequestOutcome::Rejected) => rejections.record(
                RejectionEntry::new(self.start_time, self.id_text(), status)
                    .request(self.method.clone(), &plain_path(&self.path))
                    .code(facts.reason.clone().unwrap_or_default())
                    .credential(&facts.credential)
                    .client_addr(self.client),
            ),
            _ => {}
        }
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record_head(&self, head: &Parts, context: &RequestContext) {
        let mut facts = self.facts();
        facts.status = Some(head.status.as_u16());
        facts.time_to_head = Some(self.start.elapsed());
        if let Some(key_id) = context.key_id() {
            facts.key_id = Some(key_id);
        }
        let rejected = head.extensions.get::<Rejected>().map(|rejected| rejected.code);
        let fault = head.extensions.get::<UpstreamFault>().map(|fault| fault.code());
        facts.reason = fault.or(rejected).map(Cow::Borrowed);
        if rejected.is_none() {
            facts.credential = None;
        }
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

    pub(crate) fn record_end(&self, end: BodyEnd, bytes: u64) {
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

    pub(crate) fn record_event(&self, event: &UsageEvent) {
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

impl Drop for RequestFacts {
    fn drop(&mut self) {
        let facts = self.facts();
        self.notify_observers(&facts);
        let level = self.level(facts.status);
        let is_written = match level {
            Level::DEBUG => enabled!(Level::DEBUG),
            _ => enabled!(Level::INFO),
        };
        if !is_written {
            return;
        }
        let mut line = self.observers.log.line(level, "request");
        line.field("id", self.id_text());
        if let Some(client) = self.client {
            line.display("client_addr", format_args!("{client}"));
        }
        line.option("key_id", facts.key_id.as_ref().map(KeyId::as_str));
        line.field("method", self.method.as_str());
        line.field("path", plain_path(&self.path));
        line.option("status", facts.status);
        line.field("outcome", facts.outcome.as_str());
        line.option("reason", facts.reason.as_deref());
        line.option("time_to_head_ms", facts.time_to_head.map(milliseconds));
        let duration = facts.duration.unwrap_or_else(|| self.start.elapsed());
        line.field("duration_ms", milliseconds(duration));
        let usage = facts.usage;
        line.option("bytes_in", usage.map(|usage| usage.bytes_in));
        line.field("bytes_out", facts.bytes_out);
        line.option("units", usage.map(|usage| usage.units));
        line.option("refunded", usage.map(|usage| usage.refunded));
        if let Some(tokens) = usage.and_then(|usage| usage.tokens) {
            line.field("prompt_tokens", tokens.prompt);
            line.field("completion_tokens", tokens.completion);
            line.field("total_tokens", tokens.total);
            line.option("cached_tokens", tokens.cached);
            line.option("reasoning_tokens", tokens.reasoning);
        }
        self.observers.log.write(line);
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
