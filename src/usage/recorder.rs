//! Builds the event of one request.

use std::{borrow::Cow, fmt, io::IoSlice, sync::Arc, time::Instant};

use bytes::Buf;
use http::{HeaderMap, Method, Request, response::Parts};
use http_body::Body;

use super::{
    RequestBody, RequestBodyObserver, RequestOutcome, UsageEvent, UsageRecorderLayer, UsageSink,
    metrics::InFlightGuard, parse::ResponseScanner, request_body::RequestBodyHandle,
};
use crate::{
    body::{BodyEnd, BodyObserver, ObservedBody},
    error::{Rejected, UpstreamFault},
    key::looks_like_key,
    request::{Listener, RequestContext},
};

/// The event of a request without a response yet.
pub(super) struct Recorder<U>(Box<Recording<U>>);

/// The event of one request until it is recorded.
// Always boxed, as futures and bodies are moved often.
struct Recording<U> {
    layer: Arc<UsageRecorderLayer<U>>,
    listeners: Vec<Listener>,
    _in_flight: InFlightGuard,
    context: RequestContext,
    event: UsageEvent,
    started: Instant,
    /// The code with which a layer inside rejected the request.
    rejection: Option<&'static str>,
    /// What is read of the request body, if there is one.
    request_body: Option<RequestBodyHandle>,
    /// Whether the response had said that it is complete before the client left.
    is_delivered: bool,
}

impl<U: UsageSink> Recorder<U> {
    /// Begins the event of a request. Its body is observed from now on.
    pub(super) fn start<B: Body>(
        layer: Arc<UsageRecorderLayer<U>>,
        mut request: Request<B>,
    ) -> (Self, Request<RequestBody<B>>) {
        let context = RequestContext::of(request.extensions_mut());
        let mut event = UsageEvent::new(context.received_at_by(&*layer.clock));
        event.method = request.method().clone();
        event.path = request.uri().path().to_owned();
        set_request_id(&context, request.headers());
        let observer =
            (!request.body().is_end_stream()).then(|| RequestBodyObserver::new(request.headers()));
        let recording = Recording {
            listeners: context.take_listeners(),
            _in_flight: layer.metrics.enter(),
            layer,
            context,
            event,
            started: Instant::now(),
            rejection: None,
            request_body: observer.as_ref().map(RequestBodyObserver::handle),
            is_delivered: false,
        };
        let request = request.map(|body| match observer {
            Some(observer) => ObservedBody::new(body, observer, None),
            None => ObservedBody::unobserved(body),
        });
        (Self(Box::new(recording)), request)
    }

    pub(super) fn method(&self) -> &Method {
        &self.0.event.method
    }

    /// Returns an observer for the body of the response with this head.
    pub(super) fn observe(mut self, head: &Parts) -> ResponseObserver<U> {
        self.0.read_head(head);
        ResponseObserver(Box::new(Observation {
            scanner: ResponseScanner::new(self.method(), head),
            complete: outcome_of_complete(head),
            // The head of a rejection is enough to record it: an outer layer may replace the body.
            has_all: head.extensions.get::<Rejected>().is_some(),
            recording: self.0,
        }))
    }

    /// Records the event of a request without a response.
    pub(super) fn finish(self, outcome: RequestOutcome) {
        self.0.record(outcome);
    }
}

impl<U: UsageSink> Recording<U> {
    fn read_head(&mut self, head: &Parts) {
        let event = &mut self.event;
        event.status = Some(head.status.as_u16());
        event.time_to_head = Some(self.started.elapsed());
        event.code = head.extensions.get().map(|fault: &UpstreamFault| fault.code().into());
        self.rejection = head.extensions.get().map(|rejected: &Rejected| rejected.code);
        // The client knows the request by the id in the response.
        set_request_id(&self.context, &head.headers);
    }

    fn client_has_left(&self) -> bool {
        !self.is_delivered && self.context.is_abandoned()
    }

    /// Completes and records the event.
    fn record(mut self, outcome: RequestOutcome) {
        let client_has_left = self.client_has_left();
        let (event, context) = (&mut self.event, &self.context);
        event.outcome = match outcome {
            RequestOutcome::Succeeded | RequestOutcome::Failed if client_has_left => {
                RequestOutcome::ClientGone
            }
            // A rejection costs nothing, unless the refunds of the day are used up.
            RequestOutcome::Rejected if context.units() > 0 => RequestOutcome::Failed,
            _ => outcome,
        };
        if event.outcome == RequestOutcome::Rejected && event.code.is_none() {
            event.code = self.rejection.map(Cow::Borrowed);
        }
        if let Some(request_body) = &self.request_body {
            request_body.complete(event);
        }
        // Models are stored and shown as they are.
        event.requested_model = event.requested_model.take().filter(|model| !looks_like_key(model));
        event.model = event.model.take().filter(|model| !looks_like_key(model));
        event.key_id = context.key_id();
        event.request_id = context.request_id().map(|id| id.to_string());
        event.units = context.units();
        event.refunded = context.is_refunded();
        event.admission = context.admission();
        event.duration = Some(self.started.elapsed());
        self.layer.metrics.record(event);
        for listener in self.listeners {
            listener(event);
        }
        self.layer.sink.record(self.event);
    }
}

fn set_request_id(context: &RequestContext, headers: &HeaderMap) {
    let id = headers.get("x-request-id");
    if let Some(id) = id.and_then(|id| id.to_str().ok()) {
        context.set_request_id(id);
    }
}

/// Observes a response body for the recorder.
pub(super) struct ResponseObserver<U>(Box<Observation<U>>);

struct Observation<U> {
    recording: Box<Recording<U>>,
    /// The outcome if the whole response is sent.
    complete: RequestOutcome,
    scanner: ResponseScanner,
    /// Whether the client was sent all that the response says.
    has_all: bool,
}

/// Returns the outcome of a response with this head that is sent as a whole.
fn outcome_of_complete(head: &Parts) -> RequestOutcome {
    match head.extensions.get() {
        None => {}
        Some(UpstreamFault::RequestAbandoned) => return RequestOutcome::ClientGone,
        Some(UpstreamFault::RequestTooLarge | UpstreamFault::RequestBroken) => {
            return RequestOutcome::Rejected;
        }
        Some(_) => return RequestOutcome::Failed,
    }
    match head.extensions.get::<Rejected>() {
        Some(_) => RequestOutcome::Rejected,
        None if head.status.is_client_error() || head.status.is_server_error() => {
            RequestOutcome::Failed
        }
        None => RequestOutcome::Succeeded,
    }
}

impl<D: Buf, U: UsageSink> BodyObserver<D> for ResponseObserver<U> {
    fn data(&mut self, data: &D) {
        let Observation { recording, scanner, has_all, .. } = &mut *self.0;
        recording.event.bytes_out += data.remaining() as u64;
        let started = recording.started;
        recording.event.time_to_first_byte.get_or_insert_with(|| started.elapsed());
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = data.chunks_vectored(&mut slices);
        for slice in &slices[..filled] {
            scanner.scan(slice);
        }
        // Many clients leave at the last event, before the end of the body.
        if scanner.is_over() && !recording.client_has_left() {
            recording.is_delivered = true;
            *has_all = true;
        }
    }

    fn end(self, end: BodyEnd) {
        let Observation { mut recording, complete, mut scanner, has_all } = *self.0;
        let event = &mut recording.event;
        (event.model, event.tokens) = scanner.finish(end == BodyEnd::Complete);
        recording.record(match end {
            BodyEnd::Complete => complete,
            BodyEnd::Failed => RequestOutcome::Failed,
            BodyEnd::Abandoned if has_all => complete,
            BodyEnd::Abandoned => RequestOutcome::ClientGone,
        });
    }
}

impl<U> fmt::Debug for ResponseObserver<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseObserver")
    }
}
