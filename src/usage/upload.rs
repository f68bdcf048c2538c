//! What a request's body tells while it passes by.

use std::{io::IoSlice, sync::Arc};

use bytes::Buf;
use http::{HeaderMap, header};

use super::member::TopMemberScanner;
use crate::{
    body::{BodyEnd, BodyObserver, ObservedBody},
    store::Upload,
};

/// The request's body as the inner service gets it: the same, watched.
pub type RequestBody<B> = ObservedBody<B, UploadObserver>;

/// Watches a request's body for the recorder.
#[derive(Debug)]
pub struct UploadObserver {
    upload: Arc<Upload>,
    scanner: Option<TopMemberScanner>,
}

impl UploadObserver {
    pub(super) fn new(upload: Arc<Upload>, headers: &HeaderMap) -> Self {
        Self { upload, scanner: is_json(headers).then(TopMemberScanner::model) }
    }
}

impl<D: Buf> BodyObserver<D> for UploadObserver {
    fn data(&mut self, data: &D) {
        self.upload.add_bytes(data.remaining());
        let Some(scanner) = &mut self.scanner else { return };
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = data.chunks_vectored(&mut slices);
        let found = slices[..filled].iter().find_map(|slice| scanner.scan(slice));
        if let Some(model) = found {
            self.upload.name_model(model);
        }
        if scanner.is_over() {
            self.scanner = None;
        }
    }

    fn end(self, _: BodyEnd) {}
}

/// Whether a request says that its body is JSON, or says nothing of it.
fn is_json(headers: &HeaderMap) -> bool {
    let is = |name, expected: &str| {
        headers.get(name).is_none_or(|value| {
            let begin = value.as_bytes().get(..expected.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(expected.as_bytes()))
        })
    };
    is(header::CONTENT_TYPE, "application/json") && is(header::CONTENT_ENCODING, "identity")
}
