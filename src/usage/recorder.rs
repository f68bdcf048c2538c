use std::{
    fmt,
    io::IoSlice,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Buf;
use http::{Method, Request, response::Parts};

use super::{Outcome, UsageEvent, UsageSink, tokens::AnswerScanner};
use crate::{
    body::{BodyEnd, BodyObserver},
    clock::{Clock, ReceivedAt},
    error::{Rejected, UpstreamFault},
    key::{KeyId, KeyRecord},
    store::Units,
};

/// What all clones of the service share.
pub(super) struct Shared<U> {
    pub(super) sink: U,
    pub(super) clock: Arc<dyn Clock>,
}

/// What is known of a request so far.
pub(super) struct Recorder<U> {
    shared: Arc<Shared<U>>,
    units: Units,
    started: Instant,
    event: UsageEvent,
}

impl<U: UsageSink> Recorder<U> {
    pub(super) fn start<B>(shared: Arc<Shared<U>>, request: &mut Request<B>) -> Self {
        let at = ReceivedAt::of(request.extensions_mut(), &*shared.clock);
        let units = Units::of(request.extensions_mut());
        let event = new_event(request, at);
        Self { shared, units, started: Instant::now(), event }
    }

    pub(super) fn method(&self) -> &Method {
        &self.event.method
    }

    /// Takes note of the answer's head.
    pub(super) fn head(&mut self, head: &Parts) {
        self.event.status = Some(head.status.as_u16());
        self.event.time_to_head = Some(self.started.elapsed());
        if let Some(id) = key_id(&head.extensions) {
            self.event.key_id = Some(id);
        }
    }

    pub(super) fn finish(mut self, outcome: Outcome) {
        self.event.outcome = outcome;
        self.event.units = self.units.charged();
        self.event.refunded = self.units.refunded();
        self.event.duration = self.started.elapsed();
        self.shared.sink.record(self.event);
    }
}

fn new_event<B>(request: &Request<B>, at: SystemTime) -> UsageEvent {
    UsageEvent {
        key_id: key_id(request.extensions()),
        at,
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        status: None,
        outcome: Outcome::ClientGone,
        units: 0,
        refunded: false,
        model: None,
        tokens: None,
        bytes_out: 0,
        time_to_head: None,
        duration: std::time::Duration::ZERO,
    }
}

fn key_id(extensions: &http::Extensions) -> Option<KeyId> {
    extensions.get::<Arc<KeyRecord>>().map(|record| record.id.clone())
}

/// Watches an answer's body for the recorder.
pub struct UsageObserver<U> {
    recorder: Recorder<U>,
    complete: Outcome,
    scanner: AnswerScanner,
}

impl<U> UsageObserver<U> {
    pub(super) fn new(recorder: Recorder<U>, head: &Parts) -> Self {
        Self { recorder, complete: when_complete(head), scanner: AnswerScanner::for_head(head) }
    }
}

/// What a whole answer with this head stands for.
fn when_complete(head: &Parts) -> Outcome {
    if head.extensions.get::<UpstreamFault>().is_some() {
        return Outcome::Failed;
    }
    match head.extensions.get::<Rejected>() {
        Some(rejected) => Outcome::Rejected(rejected.code),
        None if head.status.is_client_error() || head.status.is_server_error() => Outcome::Failed,
        None => Outcome::Succeeded,
    }
}

impl<D: Buf, U: UsageSink> BodyObserver<D> for UsageObserver<U> {
    fn data(&mut self, data: &D) {
        self.recorder.event.bytes_out += data.remaining() as u64;
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = data.chunks_vectored(&mut slices);
        for slice in &slices[..filled] {
            self.scanner.scan(slice);
        }
    }

    fn end(mut self, end: BodyEnd) {
        (self.recorder.event.model, self.recorder.event.tokens) = self.scanner.finish();
        let outcome = match end {
            BodyEnd::Complete => self.complete,
            BodyEnd::Failed => Outcome::Failed,
            BodyEnd::Abandoned => Outcome::ClientGone,
        };
        self.recorder.finish(outcome);
    }
}

impl<U> fmt::Debug for UsageObserver<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsageObserver")
    }
}
