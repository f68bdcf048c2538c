use std::{
    error::Error,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{
    HeaderRules,
    error::{BoxError, Chain, upload_fault},
};
use crate::error::UpstreamFault;

pin_project! {
    /// The client's request body on its way to the transport.
    ///
    /// Frames and hints pass untouched, trailers as the rules for headers say. If the body fails,
    /// the proxy learns it here and blames the client, whatever the transport makes of it: an HTTP/2
    /// client only says that the stream was reset.
    ///
    /// A transport that has neither asked for a frame nor dropped the body has not begun to send the
    /// request: where the time for the head runs out by then, the upstream was never reached.
    #[derive(Debug)]
    pub struct RequestBody<B> {
        #[pin]
        inner: B,
        upload: Upload,
        rules: Arc<HeaderRules>,
    }

    impl<B> PinnedDrop for RequestBody<B> {
        fn drop(this: Pin<&mut Self>) {
            this.project().upload.begin();
        }
    }
}

/// How far a request's body has come; the body and the proxy share it.
#[derive(Clone, Debug)]
pub(super) struct Upload(Arc<State>);

#[derive(Debug)]
struct State {
    called: Instant,
    /// When it went on last, in milliseconds since the call and one more; 0 before it has begun.
    went_on: AtomicU64,
    fault: OnceLock<UpstreamFault>,
}

impl Upload {
    /// That of a call that begins now.
    pub(super) fn new() -> Self {
        let (went_on, fault) = (AtomicU64::new(0), OnceLock::new());
        Self(Arc::new(State { called: Instant::now(), went_on, fault }))
    }

    fn go_on(&self) {
        let since = self.0.called.elapsed().as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1);
        self.0.went_on.store(since, Ordering::Relaxed);
    }

    fn begin(&self) {
        let _ = self.0.went_on.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// When the transport was called.
    pub(super) fn called(&self) -> Instant {
        self.0.called
    }

    /// When the upload went on last; `None` if the transport has not begun with it.
    pub(super) fn went_on(&self) -> Option<Instant> {
        let since = self.0.went_on.load(Ordering::Relaxed).checked_sub(1)?;
        self.0.called.checked_add(Duration::from_millis(since))
    }

    /// Why it failed, if it did.
    pub(super) fn fault(&self) -> Option<UpstreamFault> {
        self.0.fault.get().copied()
    }
}

impl<B> RequestBody<B> {
    pub(super) fn new(inner: B, rules: &Arc<HeaderRules>) -> (Self, Upload) {
        let upload = Upload::new();
        (Self { inner, upload: upload.clone(), rules: rules.clone() }, upload)
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
        this.upload.begin();
        let frame = ready!(this.inner.poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(mut frame) => {
                this.upload.go_on();
                if let Some(trailers) = frame.trailers_mut() {
                    this.rules.apply_to_trailers(trailers);
                }
                Ok(frame)
            }
            Err(error) => {
                let error = error.into();
                let fault = upload_fault(&*error);
                tracing::debug!(fault = fault.code(), error = %Chain(&*error), "upload failed");
                this.upload.0.fault.get_or_init(|| fault);
                Err(error)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
