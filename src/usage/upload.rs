//! What a request's body tells while it passes by.

use std::{
    io::IoSlice,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Buf;
use http::HeaderMap;

use super::member::{Member, MemberScanner, Wanted};
use crate::{
    body::{BodyEnd, BodyObserver, ObservedBody},
    content::is_plain,
    store::UsageEvent,
};

/// The request's body as the inner service gets it: the same, watched.
pub type RequestBody<B> = ObservedBody<B, UploadObserver>;

const MODEL: Wanted =
    Wanted { members: &[Member { name: b"\"model\"", longest: 256 }], inner: &[] };

/// Watches a request's body for the recorder.
// All that it knows is behind one pointer, as requests are moved about a good deal.
#[derive(Debug)]
pub struct UploadObserver(Arc<Mutex<Seen>>);

/// What is known of the body so far.
#[derive(Debug)]
struct Seen {
    bytes: u64,
    model: Option<String>,
    /// Until the model is found.
    scanner: Option<MemberScanner>,
}

impl UploadObserver {
    pub(super) fn new(headers: &HeaderMap) -> Self {
        // Whatever it is called: the scanner gives up at the first byte of what is no object.
        let scanner = is_plain(headers).then(|| MemberScanner::new(&MODEL));
        Self(Arc::new(Mutex::new(Seen { bytes: 0, model: None, scanner })))
    }

    /// What it knows, now and later.
    pub(super) fn upload(&self) -> Upload {
        Upload(self.0.clone())
    }
}

impl<D: Buf> BodyObserver<D> for UploadObserver {
    fn data(&mut self, data: &D) {
        let seen = &mut *lock(&self.0);
        seen.bytes += data.remaining() as u64;
        let Some(scanner) = &mut seen.scanner else { return };
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = data.chunks_vectored(&mut slices);
        for slice in &slices[..filled] {
            scanner.scan(slice, |found| {
                seen.model = found.value.and_then(|value| serde_json::from_slice(value).ok());
                match seen.model {
                    Some(_) => ControlFlow::Break(()),
                    None => ControlFlow::Continue(()),
                }
            });
        }
        if scanner.is_over() {
            seen.scanner = None;
        }
    }

    fn end(self, _: BodyEnd) {}
}

/// What is known of a request's body so far; the recorder and the body share it.
pub(super) struct Upload(Arc<Mutex<Seen>>);

impl Upload {
    /// Notes it in the event.
    pub(super) fn note(&self, event: &mut UsageEvent) {
        let mut seen = lock(&self.0);
        event.bytes_in = seen.bytes;
        if let Some(model) = seen.model.take() {
            event.requested_model = Some(model);
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
