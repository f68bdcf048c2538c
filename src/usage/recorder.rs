use std::{
    fmt,
    io::IoSlice,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Buf;
use http::{Method, Request, response::Parts};
use http_body::Body;

#[cfg(feature = "metrics")]
use super::meter::{InFlight, Meter};
use super::{
    OnEvent, Outcome, RequestBody, UploadObserver, UsageEvent, UsageSink, answer::AnswerScanner,
};
use crate::{
    body::{BodyEnd, BodyObserver, ObservedBody},
    clock::{Clock, ReceivedAt},
    error::{Rejected, UpstreamFault},
    key::{KeyId, KeyRecord, may_be_key},
    store::{Abandoned, Draft, Units},
};

/// What all clones of the service share.
pub(super) struct Shared<U> {
    pub(super) sink: U,
    clock: Arc<dyn Clock>,
    #[cfg(feature = "metrics")]
    meter: Meter,
}

impl<U> Shared<U> {
    pub(super) fn new(sink: U, clock: Arc<dyn Clock>) -> Self {
        Self {
            sink,
            clock,
            #[cfg(feature = "metrics")]
            meter: Meter::new(),
        }
    }
}

/// Who hears of a request's event, once, whoever writes it down.
struct Listeners<U> {
    shared: Arc<Shared<U>>,
    on_event: Option<OnEvent>,
    #[cfg(feature = "metrics")]
    _in_flight: InFlight,
}

impl<U> Listeners<U> {
    fn new(shared: Arc<Shared<U>>, extensions: &mut http::Extensions) -> Self {
        Self {
            on_event: extensions.remove(),
            #[cfg(feature = "metrics")]
            _in_flight: shared.meter.enter(),
            shared,
        }
    }

    fn tell(&self, event: &UsageEvent) {
        #[cfg(feature = "metrics")]
        self.shared.meter.count(event);
        if let Some(on_event) = &self.on_event {
            on_event.tell(event);
        }
    }
}

/// The event of one request, until it is handed to the sink.
pub(super) struct Recorder<U> {
    listeners: Listeners<U>,
    units: Units,
    method: Method,
    /// The event, unless a quota inside may write it down: then it lies in `units`.
    draft: Option<Box<Draft>>,
}

impl<U: UsageSink> Recorder<U> {
    /// Begins the event of a request, whose body is watched from now on.
    pub(super) fn start<B: Body>(
        shared: Arc<Shared<U>>,
        mut request: Request<B>,
    ) -> (Self, Request<RequestBody<B>>) {
        let at = ReceivedAt::of(request.extensions_mut(), &*shared.clock);
        let units = Units::of(request.extensions_mut());
        let ledger = shared.sink.ledger();
        let listeners = Listeners::new(shared, request.extensions_mut());
        let observer =
            (!request.body().is_end_stream()).then(|| UploadObserver::new(request.headers()));
        let mut draft = Some(Box::new(Draft {
            event: new_event(&request, at),
            started: Instant::now(),
            upload: observer.as_ref().map(UploadObserver::upload),
            abandoned: request.extensions().get::<Abandoned>().cloned(),
            ledger,
            complete,
            is_written: false,
        }));
        if ledger.is_some() {
            units.lay_down(&mut draft);
        }
        let recorder = Self { listeners, units, method: request.method().clone(), draft };
        let request = request.map(|body| match observer {
            Some(observer) => ObservedBody::new(body, observer, None),
            None => ObservedBody::unobserved(body),
        });
        (recorder, request)
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// Watches the answer with this head, unless it was written down already.
    pub(super) fn observe(mut self, head: &Parts) -> Option<UsageObserver<U>> {
        let mut draft = self.take_draft()?;
        note_head(&mut draft, head);
        let scanner = AnswerScanner::new(&self.method, head);
        let complete = when_complete(head);
        let (listeners, units) = (self.listeners, self.units);
        let watched = Watched { listeners, units, draft, complete, scanner, has_all: false };
        Some(UsageObserver(Box::new(watched)))
    }

    /// There is no answer.
    pub(super) fn finish(mut self, outcome: Outcome) {
        if let Some(draft) = self.take_draft() {
            record(&self.listeners, &self.units, draft, outcome);
        }
    }

    fn take_draft(&mut self) -> Option<Box<Draft>> {
        let draft = self.draft.take().or_else(|| self.units.take_up())?;
        if draft.is_written {
            self.listeners.tell(&draft.event);
            return None;
        }
        Some(draft)
    }
}

fn record<U: UsageSink>(
    listeners: &Listeners<U>,
    units: &Units,
    mut draft: Box<Draft>,
    outcome: Outcome,
) {
    note_end(&mut draft, units, outcome);
    listeners.tell(&draft.event);
    listeners.shared.sink.record(draft.event);
}

/// Completes the event of an answer that is here as a whole.
fn complete(draft: &mut Draft, units: &Units, head: &Parts, body: &[IoSlice<'_>]) {
    note_head(draft, head);
    let mut scanner = AnswerScanner::new(&draft.event.method, head);
    for chunk in body {
        draft.event.bytes_out += chunk.len() as u64;
        scanner.scan(chunk);
    }
    (draft.event.model, draft.event.tokens) = scanner.finish(true);
    draft.event.time_to_first_byte = draft.event.time_to_head.filter(|_| !body.is_empty());
    note_end(draft, units, when_complete(head));
}

fn note_head(draft: &mut Draft, head: &Parts) {
    let event = &mut draft.event;
    event.status = Some(head.status.as_u16());
    event.time_to_head = Some(draft.started.elapsed());
    event.bytes_out = 0;
    event.fault = head.extensions.get::<UpstreamFault>().map(|fault| fault.code());
    if let Some(id) = key_id(&head.extensions) {
        event.key_id = Some(id);
    }
}

fn note_end(draft: &mut Draft, units: &Units, outcome: Outcome) {
    let has_left = has_left(draft);
    let event = &mut draft.event;
    event.outcome = match outcome {
        Outcome::Succeeded | Outcome::Failed if has_left => Outcome::ClientGone,
        // What is refused costs nothing, but for the refunds of a day that are used up.
        Outcome::Rejected(_) if units.charged() > 0 => Outcome::Failed,
        _ => outcome,
    };
    if let Some(upload) = &draft.upload {
        upload.note(event);
    }
    // Models are shown and kept in clear.
    event.model_asked = event.model_asked.take().filter(|model| !may_be_key(model));
    event.model = event.model.take().filter(|model| !may_be_key(model));
    if event.key_id.is_none() {
        event.key_id = units.key_id().cloned();
    }
    event.units = units.charged();
    event.refunded = units.refunded();
    event.awaited = units.awaits_event();
    event.duration = draft.started.elapsed();
}

fn new_event<B>(request: &Request<B>, at: SystemTime) -> UsageEvent {
    let mut event = UsageEvent::new(at);
    event.key_id = key_id(request.extensions());
    event.method = request.method().clone();
    event.path = request.uri().path().to_owned();
    event
}

fn key_id(extensions: &http::Extensions) -> Option<KeyId> {
    extensions.get::<Arc<KeyRecord>>().map(|record| record.id.clone())
}

/// Watches an answer's body for the recorder.
// What it knows is boxed, as bodies are moved about a good deal.
pub struct UsageObserver<U>(Box<Watched<U>>);

struct Watched<U> {
    listeners: Listeners<U>,
    units: Units,
    draft: Box<Draft>,
    complete: Outcome,
    scanner: AnswerScanner,
    /// Whether the client was handed all that the answer says.
    has_all: bool,
}

fn has_left(draft: &Draft) -> bool {
    draft.abandoned.as_ref().is_some_and(Abandoned::get)
}

/// What a whole answer with this head stands for.
fn when_complete(head: &Parts) -> Outcome {
    match head.extensions.get() {
        None => {}
        Some(UpstreamFault::RequestAbandoned) => return Outcome::ClientGone,
        Some(fault @ (UpstreamFault::RequestTooLarge | UpstreamFault::RequestBroken)) => {
            return Outcome::Rejected(fault.code());
        }
        Some(_) => return Outcome::Failed,
    }
    match head.extensions.get::<Rejected>() {
        Some(rejected) => Outcome::Rejected(rejected.code),
        None if head.status.is_client_error() || head.status.is_server_error() => Outcome::Failed,
        None => Outcome::Succeeded,
    }
}

impl<D: Buf, U: UsageSink> BodyObserver<D> for UsageObserver<U> {
    fn data(&mut self, data: &D) {
        let watched = &mut *self.0;
        let draft = &mut watched.draft;
        draft.event.bytes_out += data.remaining() as u64;
        draft.event.time_to_first_byte.get_or_insert_with(|| draft.started.elapsed());
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = data.chunks_vectored(&mut slices);
        for slice in &slices[..filled] {
            watched.scanner.scan(slice);
        }
        // Many clients leave at the last event, before the end of the body.
        if watched.scanner.is_over() && !has_left(draft) {
            draft.abandoned = None;
            watched.has_all = true;
        }
    }

    fn end(self, end: BodyEnd) {
        let Watched { listeners, units, mut draft, complete, mut scanner, has_all } = *self.0;
        (draft.event.model, draft.event.tokens) = scanner.finish(end == BodyEnd::Complete);
        let outcome = match end {
            BodyEnd::Complete => complete,
            BodyEnd::Failed => Outcome::Failed,
            BodyEnd::Abandoned if has_all => complete,
            BodyEnd::Abandoned => Outcome::ClientGone,
        };
        record(&listeners, &units, draft, outcome);
    }
}

impl<U> fmt::Debug for UsageObserver<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsageObserver")
    }
}
