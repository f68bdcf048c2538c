use std::{
    error::Error,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    HeaderRules,
    error::{BoxError, Chain, upload_fault},
};
use crate::error::UpstreamFault;

pin_project! {
    /// The client's request body on its way to the transport.
    ///
    /// Frames and hints pass untouched, trailers as the rules for headers say. If the body fails, the proxy learns it here and
    /// blames the client, whatever the transport makes of it: an HTTP/2 client only says that the
    /// stream was reset.
    #[derive(Debug)]
    pub struct RequestBody<B> {
        #[pin]
        inner: B,
        fault: UploadFault,
        rules: Arc<HeaderRules>,
    }
}

/// Why the upload failed, if it did. A request without a body needs no place for it.
#[derive(Clone, Debug, Default)]
pub(super) struct UploadFault(Option<Arc<OnceLock<UpstreamFault>>>);

impl UploadFault {
    pub(super) fn get(&self) -> Option<UpstreamFault> {
        self.0.as_ref()?.get().copied()
    }
}

impl<B: Body> RequestBody<B> {
    pub(super) fn new(inner: B, rules: &Arc<HeaderRules>) -> (Self, UploadFault) {
        let fault = UploadFault((!inner.is_end_stream()).then(Arc::default));
        let body = Self { inner, fault: fault.clone(), rules: rules.clone() };
        (body, fault)
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        Poll::Ready(match ready!(this.inner.poll_frame(cx)) {
            Some(Err(error)) => {
                let error = error.into();
                let fault = upload_fault(&*error);
                tracing::debug!(fault = fault.code(), error = %Chain(&*error), "upload failed");
                if let Some(slot) = &this.fault.0 {
                    slot.get_or_init(|| fault);
                }
                Some(Err(error))
            }
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    this.rules.apply_to_trailers(trailers);
                }
                Some(Ok(frame))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
