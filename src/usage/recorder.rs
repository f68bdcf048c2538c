use std::{
    borrow::Cow,
    fmt,
    io::IoSlice,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Buf;
use http::{HeaderMap, Method, Request, response::Parts};
use http_body::Body;

use super::meter::{InFlight, Meter};
use super::{
    RequestBody, RequestOutcome, UploadObserver, UsageEvent, UsageSink, answer::AnswerScanner,
    upload::Upload,
};
use crate::{
    body::{BodyEnd, BodyObserver, ObservedBody},
    clock::Clock,
    error::{Rejected, UpstreamFault},
    key::looks_like_key,
    request::{Listener, RequestContext},
};

/// What all clones of the service share.
pub(super) struct Shared<U> {
    pub(super) sink: U,
    clock: Arc<dyn Clock>,
    meter: Meter,
}

impl<U> Shared<U> {
    pub(super) fn new(sink: U, clock: Arc<dyn Clock>) -> Self {
        Self { sink, clock, meter: Meter::new() }
    }
}

/// What a request's event is reported to, once.
struct Listeners<U> {
    shared: Arc<Shared<U>>,
    of_request: Vec<Listener>,
    _in_flight: InFlight,
}

impl<U> Listeners<U> {
    fn new(shared: Arc<Shared<U>>, context: &RequestContext) -> Self {
        let of_request = context.take_listeners();
        Self { of_request, _in_flight: shared.meter.enter(), shared }
    }

    fn report(&mut self, event: &UsageEvent) {
        self.shared.meter.count(event);
        for listener in self.of_request.drain(..) {
            listener(event);
        }
    }
}

/// The event of one request, until it is handed to the sink.
pub(super) struct Recorder<U>(Box<Recording<U>>);

/// What is known of one request.
// Boxed wherever it is kept, as futures and bodies are moved about a good deal.
struct Recording<U> {
    listeners: Listeners<U>,
    context: RequestContext,
    event: UsageEvent,
    started: Instant,
    /// The code with which a layer inside rejected the request.
    rejection: Option<&'static str>,
    /// What passes of the request's body, if it has one.
    upload: Option<Upload>,
    /// Whether the client was handed the whole response before it disconnected.
    is_delivered: bool,
}

impl<U: UsageSink> Recorder<U> {
    /// Begins the event of a request, whose body is watched from now on.
    pub(super) fn start<B: Body>(
        shared: Arc<Shared<U>>,
        mut request: Request<B>,
    ) -> (Self, Request<RequestBody<B>>) {
        let context = RequestContext::of(request.extensions_mut());
        let event = new_event(&request, context.received_at_by(&*shared.clock));
        note_request_id(&context, request.headers());
        let listeners = Listeners::new(shared, &context);
        let observer =
            (!request.body().is_end_stream()).then(|| UploadObserver::new(request.headers()));
        let recording = Recording {
            listeners,
            context,
            event,
            started: Instant::now(),
            rejection: None,
            upload: observer.as_ref().map(UploadObserver::upload),
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

    /// Watches the answer with this head.
    pub(super) fn observe(mut self, head: &Parts) -> UsageObserver<U> {
        self.0.note_head(head);
        UsageObserver(Box::new(Watched {
            scanner: AnswerScanner::new(self.method(), head),
            complete: when_complete(head),
            // What a layer inside has made itself is known with its head; an outer layer may put a body of
            // another form in the place of its own.
            has_all: head.extensions.get::<Rejected>().is_some(),
            recording: self.0,
        }))
    }

    /// There is no answer.
    pub(super) fn finish(self, outcome: RequestOutcome) {
        self.0.record(outcome);
    }
}

impl<U: UsageSink> Recording<U> {
    fn note_head(&mut self, head: &Parts) {
        let event = &mut self.event;
        event.status = Some(head.status.as_u16());
        event.time_to_head = Some(self.started.elapsed());
        event.code = head.extensions.get().map(|fault: &UpstreamFault| fault.code().into());
        self.rejection = head.extensions.get().map(|rejected: &Rejected| rejected.code);
        // The client knows the request by what its response says.
        note_request_id(&self.context, &head.headers);
    }

    fn has_left(&self) -> bool {
        !self.is_delivered && self.context.is_abandoned()
    }

    /// Completes the event and hands it on.
    fn record(mut self, outcome: RequestOutcome) {
        let has_left = self.has_left();
        let (event, context) = (&mut self.event, &self.context);
        event.outcome = match outcome {
            RequestOutcome::Succeeded | RequestOutcome::Failed if has_left => {
                RequestOutcome::ClientGone
            }
            // A rejection costs nothing, unless the refunds of the day are used up.
            RequestOutcome::Rejected if context.units() > 0 => RequestOutcome::Failed,
            _ => outcome,
        };
        if event.outcome == RequestOutcome::Rejected && event.code.is_none() {
            event.code = self.rejection.map(Cow::Borrowed);
        }
        if let Some(upload) = &self.upload {
            upload.note(event);
        }
        // Models are shown and kept in clear.
        event.requested_model = event.requested_model.take().filter(|model| !looks_like_key(model));
        event.model = event.model.take().filter(|model| !looks_like_key(model));
        event.key_id = context.key_id();
        event.request_id = context.request_id().map(|id| id.to_string());
        event.units = context.units();
        event.refunded = context.is_refunded();
        event.admission = context.admission();
        event.duration = Some(self.started.elapsed());
        self.listeners.report(event);
        self.listeners.shared.sink.record(self.event);
    }
}

fn new_event<B>(request: &Request<B>, at: SystemTime) -> UsageEvent {
    let mut event = UsageEvent::new(at);
    event.method = request.method().clone();
    event.path = request.uri().path().to_owned();
    event
}

fn note_request_id(context: &RequestContext, headers: &HeaderMap) {
    let id = headers.get("x-request-id");
    if let Some(id) = id.and_then(|id| id.to_str().ok()) {
        context.set_request_id(id);
    }
}

/// Watches an answer's body for the recorder.
pub struct UsageObserver<U>(Box<Watched<U>>);

struct Watched<U> {
    recording: Box<Recording<U>>,
    complete: RequestOutcome,
    scanner: AnswerScanner,
    /// Whether the client was handed all that the answer says.
    has_all: bool,
}

/// What a whole answer with this head stands for.
fn when_complete(head: &Parts) -> RequestOutcome {
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

impl<D: Buf, U: UsageSink> BodyObserver<D> for UsageObserver<U> {
    fn data(&mut self, data: &D) {
        let Watched { recording, scanner, has_all, .. } = &mut *self.0;
        recording.event.bytes_out += data.remaining() as u64;
        let started = recording.started;
        recording.event.time_to_first_byte.get_or_insert_with(|| started.elapsed());
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = data.chunks_vectored(&mut slices);
        for slice in &slices[..filled] {
            scanner.scan(slice);
        }
        // Many clients leave at the last event, before the end of the body.
        if scanner.is_over() && !recording.has_left() {
            recording.is_delivered = true;
            *has_all = true;
        }
    }

    fn end(self, end: BodyEnd) {
        let Watched { mut recording, complete, mut scanner, has_all } = *self.0;
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

impl<U> fmt::Debug for UsageObserver<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsageObserver")
    }
}
