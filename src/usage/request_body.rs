//! What is read of a request body as it passes by.

use std::{
    io::IoSlice,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Buf;
use http::HeaderMap;

use crate::{
    body::{BodyEnd, BodyObserver, ObservedBody},
    content::{
        is_plain,
        members::{Member, MemberScanner, Selection},
    },
    store::UsageEvent,
};

/// Request body that [`UsageRecorder`](super::UsageRecorder) passes to its inner service: the same,
/// observed.
pub type RequestBody<B> = ObservedBody<B, RequestBodyObserver>;

const MODEL: Selection =
    Selection { members: &[Member { name: b"\"model\"", max_len: 256 }], inner: &[] };

/// Observes a request body for the recorder.
// One pointer, as requests are moved often.
#[derive(Debug)]
pub struct RequestBodyObserver(Arc<Mutex<RequestUsage>>);

/// What is known of a request body so far.
#[derive(Debug)]
struct RequestUsage {
    bytes: u64,
    model: Option<String>,
    /// Present until the model is found.
    scanner: Option<MemberScanner>,
}

impl RequestBodyObserver {
    pub(super) fn new(headers: &HeaderMap) -> Self {
        // The content type does not matter: the scanner stops at the first byte of what is no object.
        let scanner = is_plain(headers).then(|| MemberScanner::new(&MODEL));
        Self(Arc::new(Mutex::new(RequestUsage { bytes: 0, model: None, scanner })))
    }

    /// Returns a handle that knows what the observer knows, now and later.
    pub(super) fn handle(&self) -> RequestBodyHandle {
        RequestBodyHandle(self.0.clone())
    }
}

impl<D: Buf> BodyObserver<D> for RequestBodyObserver {
    fn data(&mut self, data: &D) {
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

/// Shares what a [`RequestBodyObserver`] knows.
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
