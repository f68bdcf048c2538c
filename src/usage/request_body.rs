//! What is read of a request body as it passes by.

use std::{
    io::IoSlice,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Buf;
use http::HeaderMap;
use http_body::Body;

use crate::{
    body::{BodyEnd, BodyObserver, ObservedBody},
    content::{
        is_plain,
        members::{Member, MemberScanner, Selection},
    },
    store::UsageEvent,
};

opaque_body! {
    /// Request body that [`UsageRecorder`](super::UsageRecorder) passes to its inner service if it
    /// [watches requests](super::UsageRecorderLayer::watch_requests).
    pub struct RequestBody<B>(ObservedBody<B, RequestBodyObserver>);
}

impl<B: Body> RequestBody<B> {
    /// Watches the body of a request with these headers. Returns a handle if there is a body.
    pub(super) fn watch(body: B, headers: &HeaderMap) -> (Self, Option<RequestBodyHandle>) {
        if body.is_end_stream() {
            return (Self { inner: ObservedBody::unobserved(body) }, None);
        }
        // The content type does not matter: the scanner stops at the first byte of what is not an object.
        let scanner = is_plain(headers).then(|| MemberScanner::new(&MODEL));
        let usage = Arc::new(Mutex::new(RequestUsage { bytes: 0, model: None, scanner }));
        let inner = ObservedBody::new(body, RequestBodyObserver(usage.clone()), None);
        (Self { inner }, Some(RequestBodyHandle(usage)))
    }
}

impl<B: Default> Default for RequestBody<B> {
    fn default() -> Self {
        Self { inner: ObservedBody::default() }
    }
}

const MODEL: Selection =
    Selection { members: &[Member { name: b"\"model\"", max_len: 256 }], inner: &[] };

/// Observes a request body for the recorder.
// One pointer, as requests are moved often.
struct RequestBodyObserver(Arc<Mutex<RequestUsage>>);

/// What is known of a request body so far.
struct RequestUsage {
    bytes: u64,
    model: Option<String>,
    /// Present until the model is found.
    scanner: Option<MemberScanner>,
}

impl BodyObserver for RequestBodyObserver {
    fn data(&mut self, data: &impl Buf) {
        let usage = &mut *lock(&self.0);
        usage.bytes += data.remaining() as u64;
        let Some(scanner) = &mut usage.scanner else { return };
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = data.chunks_vectored(&mut slices);
        for slice in &slices[..filled] {
            scanner.scan(slice, |found| {
                usage.model = found.value.and_then(|value| serde_json::from_slice(value).ok());
                match usage.model {
                    Some(_) => ControlFlow::Break(()),
                    None => ControlFlow::Continue(()),
                }
            });
        }
        if scanner.is_over() {
            usage.scanner = None;
        }
    }

    fn end(self, _: BodyEnd) {}
}

/// Handle to the state of a [`RequestBodyObserver`].
pub(super) struct RequestBodyHandle(Arc<Mutex<RequestUsage>>);

impl RequestBodyHandle {
    /// Adds what is known to the event.
    pub(super) fn complete(&self, event: &mut UsageEvent) {
        let mut usage = lock(&self.0);
        event.bytes_in = usage.bytes;
        if let Some(model) = usage.model.take() {
            event.requested_model = Some(model);
        }
    }
}

fn lock(usage: &Mutex<RequestUsage>) -> MutexGuard<'_, RequestUsage> {
    usage.lock().unwrap_or_else(PoisonError::into_inner)
}
