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
    OnEvent, RequestBody, RequestOutcome, UploadObserver, UsageEvent, UsageSink,
    answer::AnswerScanner, upload::Upload,
};
use crate::{
    body::{BodyEnd, BodyObserver, ObservedBody},
    clock::{Clock, ReceivedAt},
    error::{Rejected, UpstreamFault},
    key::{KeyId, KeyRecord, looks_like_key},
    store::{Abandoned, Units},
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

/// Who hears of a request's event, once.
struct Listeners<U> {
    shared: Arc<Shared<U>>,
    on_event: Option<OnEvent>,
    _in_flight: InFlight,
}

impl<U> Listeners<U> {
    fn new(shared: Arc<Shared<U>>, extensions: &mut http::Extensions) -> Self {
        Self { on_event: extensions.remove(), _in_flight: shared.meter.enter(), shared }
    }

    fn tell(&self, event: &UsageEvent) {
        self.shared.meter.count(event);
        if let Some(on_event) = &self.on_event {
            on_event.tell(event);
        }
    }
}

/// The event of one request, until it is handed to the sink.
pub(super) struct Recorder<U>(Box<Recording<U>>);

/// What is known of one request.
// Boxed wherever it is kept, as futures and bodies are moved about a good deal.
struct Recording<U> {
    listeners: Listeners<U>,
    units: Units,
    event: UsageEvent,
    started: Instant,
    /// The code with which a layer inside rejected the request.
    rejection: Option<&'static str>,
    /// What passes of the request's body, if it has one.
    upload: Option<Upload>,
    /// Whether the client has left, where somebody tells.
    abandoned: Option<Abandoned>,
}

impl<U: UsageSink> Recorder<U> {
    /// Begins the event of a request, whose body is watched from now on.
    pub(super) fn start<B: Body>(
        shared: Arc<Shared<U>>,
        mut request: Request<B>,
    ) -> (Self, Request<RequestBody<B>>) {
        let at = ReceivedAt::of(request.extensions_mut(), &*shared.clock);
        let units = Units::of(request.extensions_mut());
        let listeners = Listeners::new(shared, request.extensions_mut());
        let observer =
            (!request.body().is_end_stream()).then(|| UploadObserver::new(request.headers()));
        let recording = Recording {
            listeners,
            units,
            event: new_event(&request, at),
            started: Instant::now(),
            rejection: None,
            upload: observer.as_ref().map(UploadObserver::upload),
            abandoned: request.extensions().get::<Abandoned>().cloned(),
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
        if let Some(id) = key_id(&head.extensions) {
            event.key_id = Some(id);
        }
        // The client knows the request by what its response says.
        if let Some(id) = request_id(&head.headers) {
            event.request_id = Some(id);
        }
    }

    fn has_left(&self) -> bool {
        self.abandoned.as_ref().is_some_and(Abandoned::get)
    }

    /// Completes the event and hands it on.
    fn record(mut self, outcome: RequestOutcome) {
        let has_left = self.has_left();
        let (event, units) = (&mut self.event, &self.units);
        event.outcome = match outcome {
            RequestOutcome::Succeeded | RequestOutcome::Failed if has_left => {
                RequestOutcome::ClientGone
            }
            // A rejection costs nothing, unless the refunds of the day are used up.
            RequestOutcome::Rejected if units.charged() > 0 => RequestOutcome::Failed,
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
        if event.key_id.is_none() {
            event.key_id = units.key_id().cloned();
        }
        event.units = units.charged();
        event.refunded = units.refunded();
        event.admission = units.admission();
        event.duration = Some(self.started.elapsed());
        self.listeners.tell(event);
        self.listeners.shared.sink.record(self.event);
    }
}

fn new_event<B>(request: &Request<B>, at: SystemTime) -> UsageEvent {
    let mut event = UsageEvent::new(at);
    event.key_id = key_id(request.extensions());
    event.request_id = request_id(request.headers());
    event.method = request.method().clone();
    event.path = request.uri().path().to_owned();
    event
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let is_good = (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    is_good.then(|| id.to_owned())
}

fn key_id(extensions: &http::Extensions) -> Option<KeyId> {
    extensions.get::<Arc<KeyRecord>>().map(|record| record.id.clone())
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
            recording.abandoned = None;
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
