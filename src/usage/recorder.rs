//! Builds the event of one request.

use std::{borrow::Cow, io::IoSlice, sync::Arc, time::Instant};

use bytes::Buf;
use http::{HeaderMap, Method, Request, response::Parts};
use http_body::Body;

use super::{
    ReportedUsage, RequestBody, layer::Config, request_body::RequestBodyHandle,
    scanner::ResponseScanner,
};
use crate::{
    body::{BodyEnd, BodyObserver},
    error::{Rejected, UpstreamFault, grpc},
    key::looks_like_key,
    metrics::GaugeGuard,
    request::{Listener, RequestContext},
    store::{RequestOutcome, UsageEvent},
};

/// The event of a request without a response yet.
pub(super) struct Recorder(Box<Recording>);

/// The event of one request until it is recorded.
// Always boxed, as futures and bodies are moved often.
struct Recording {
    config: Arc<Config>,
    listeners: Vec<Listener>,
    _in_flight: GaugeGuard,
    context: RequestContext,
    event: UsageEvent,
    started: Instant,
    /// The code with which a layer inside rejected the request.
    rejection: Option<&'static str>,
    /// What is read of the request body, if it is watched.
    request_body: Option<RequestBodyHandle>,
    /// Whether the response had said that it is complete before the client left.
    is_delivered: bool,
}

impl Recorder {
    /// Begins the event of a request.
    pub(super) fn start<B>(config: Arc<Config>, request: &mut Request<B>) -> Self {
        let context = RequestContext::of(request.extensions_mut());
        let mut event = UsageEvent::new(context.received_at_by(&*config.clock));
        event.method = request.method().clone();
        event.path = request.uri().path().to_owned();
        set_request_id(&context, request.headers());
        Self(Box::new(Recording {
            listeners: context.take_listeners(),
            _in_flight: config.metrics.enter(),
            config,
            context,
            event,
            started: Instant::now(),
            rejection: None,
            request_body: None,
            is_delivered: false,
        }))
    }

    /// Watches the request's body, too.
    pub(super) fn watch<B: Body>(&mut self, request: Request<B>) -> Request<RequestBody<B>> {
        let (head, body) = request.into_parts();
        let (body, handle) = RequestBody::watch(body, &head.headers);
        self.0.request_body = handle;
        Request::from_parts(head, body)
    }

    pub(super) fn method(&self) -> &Method {
        &self.0.event.method
    }

    /// Returns an observer for the body of the response with this head.
    pub(super) fn observe(mut self, head: &Parts) -> ResponseObserver {
        self.0.read_head(head);
        ResponseObserver(Box::new(Observation {
            scanner: ResponseScanner::new(self.0.config.format.as_deref(), self.method(), head),
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

impl Recording {
    fn read_head(&mut self, head: &Parts) {
        let event = &mut self.event;
        event.status = Some(head.status.as_u16());
        event.time_to_head = Some(self.started.elapsed());
        event.code = head.extensions.get().map(|fault: &UpstreamFault| fault.code().into());
        self.rejection = head.extensions.get().map(|rejected: &Rejected| rejected.code);
        if self.rejection.is_none() {
            self.read_call(&head.headers);
        }
        // The client knows the request by the id in the response.
        set_request_id(&self.context, &head.headers);
    }

    /// Reads the status of a call of gRPC. Returns whether it says that the call has failed.
    fn read_call(&mut self, trailers: &HeaderMap) -> bool {
        let reason = grpc::failure_reason(trailers);
        if let Some(reason) = reason {
            self.event.code.get_or_insert(Cow::Borrowed(reason));
        }
        reason.is_some()
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
        event.key_id = context.key_id().or_else(|| context.subject());
        event.request_id = context.request_id().map(|id| id.to_string());
        event.units = context.units();
        event.refunded = context.is_refunded();
        event.admission = context.admission();
        event.duration = Some(self.started.elapsed());
        self.config.metrics.record(event);
        for listener in self.listeners {
            listener(event);
        }
        self.config.sink.record(self.event);
    }
}

fn set_request_id(context: &RequestContext, headers: &HeaderMap) {
    let id = headers.get("x-request-id");
    if let Some(id) = id.and_then(|id| id.to_str().ok()) {
        context.set_request_id(id);
    }
}

/// Observes a response body for the recorder.
pub(super) struct ResponseObserver(Box<Observation>);

struct Observation {
    recording: Box<Recording>,
    /// The outcome if the whole response is sent.
    complete: RequestOutcome,
    scanner: ResponseScanner,
    /// Whether everything that the response reports was sent.
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
        None if head.status.is_client_error()
            || head.status.is_server_error()
            || grpc::failure_reason(&head.headers).is_some() =>
        {
            RequestOutcome::Failed
        }
        None => RequestOutcome::Succeeded,
    }
}

impl BodyObserver for ResponseObserver {
    fn data(&mut self, data: &impl Buf) {
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

    fn trailers(&mut self, trailers: &HeaderMap) {
        let Observation { recording, complete, .. } = &mut *self.0;
        if *complete == RequestOutcome::Succeeded && recording.read_call(trailers) {
            *complete = RequestOutcome::Failed;
        }
    }

    fn end(self, end: BodyEnd) {
        let Observation { mut recording, complete, mut scanner, has_all } = *self.0;
        let event = &mut recording.event;
        let ReportedUsage { model, tokens } = scanner.finish(end == BodyEnd::Complete);
        (event.model, event.tokens) = (model, tokens);
        recording.record(match end {
            BodyEnd::Complete => complete,
            BodyEnd::Failed => RequestOutcome::Failed,
            BodyEnd::Abandoned if has_all => complete,
            BodyEnd::Abandoned => RequestOutcome::ClientGone,
        });
    }
}
