//! What a request's body tells while it passes by.

use std::{io::IoSlice, ops::ControlFlow, sync::Arc};

use bytes::Buf;
use http::HeaderMap;

use super::member::{Member, MemberScanner, Wanted};
use crate::{
    body::{BodyEnd, BodyObserver, ObservedBody},
    content::{is_plain, media_type},
    store::Upload,
};

/// The request's body as the inner service gets it: the same, watched.
pub type RequestBody<B> = ObservedBody<B, UploadObserver>;

const MODEL: Wanted =
    Wanted { members: &[Member { name: b"\"model\"", longest: 256 }], inner: &[] };

/// Watches a request's body for the recorder.
#[derive(Debug)]
pub struct UploadObserver {
    upload: Arc<Upload>,
    scanner: Option<MemberScanner>,
}

impl UploadObserver {
    pub(super) fn new(upload: Arc<Upload>, headers: &HeaderMap) -> Self {
        Self { upload, scanner: is_json(headers).then(|| MemberScanner::new(&MODEL)) }
    }
}

impl<D: Buf> BodyObserver<D> for UploadObserver {
    fn data(&mut self, data: &D) {
        self.upload.add_bytes(data.remaining());
        let Some(scanner) = &mut self.scanner else { return };
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = data.chunks_vectored(&mut slices);
        for slice in &slices[..filled] {
            scanner.scan(slice, |found| {
                let model = found.value.and_then(|value| serde_json::from_slice(value).ok());
                let Some(model) = model else { return ControlFlow::Continue(()) };
                self.upload.name_model(model);
                ControlFlow::Break(())
            });
        }
        if scanner.is_over() {
            self.scanner = None;
        }
    }

    fn end(self, _: BodyEnd) {}
}

/// Whether a request says that its body is JSON, or says nothing of it.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = media_type(headers);
    kind.is_none_or(|kind| kind.eq_ignore_ascii_case(b"application/json")) && is_plain(headers)
}
