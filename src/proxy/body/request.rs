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

use crate::{
    error::UpstreamFault,
    proxy::{
        HeaderRules,
        error::{BoxError, Chain, request_body_fault},
    },
};

pin_project! {
    /// The client's request body on its way to the transport.
    ///
    /// Data frames and size hints are forwarded as they are, trailers by the rules for headers. An
    /// error of the body is recorded as the client's fault, whatever the transport makes of it: an
    /// HTTP/2 client only reports that the stream was reset.
    ///
    /// A transport that has neither polled nor dropped the body has not begun to send the request: if
    /// the head times out then, the upstream was never reached.
    #[derive(Debug)]
    pub struct RequestBody<B> {
        #[pin]
        inner: B,
        progress: RequestProgress,
        rules: Arc<HeaderRules>,
    }

    impl<B> PinnedDrop for RequestBody<B> {
        fn drop(this: Pin<&mut Self>) {
            this.project().progress.start();
        }
    }
}

/// The progress of a request body, shared by the body and the response future.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct RequestProgress(Arc<State>);

#[derive(Debug)]
struct State {
    called_at: Instant,
    /// Time of the latest frame, in milliseconds since the call plus 1; 0 before the transport has
    /// started to send.
    last_progress: AtomicU64,
    fault: OnceLock<UpstreamFault>,
}

impl RequestProgress {
    /// Creates the progress of a transport call that is made now.
    pub(in crate::proxy) fn new() -> Self {
        let (last_progress, fault) = (AtomicU64::new(0), OnceLock::new());
        Self(Arc::new(State { called_at: Instant::now(), last_progress, fault }))
    }

    fn record_frame(&self) {
        let millis = self.0.called_at.elapsed().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX).saturating_add(1);
        self.0.last_progress.store(millis, Ordering::Relaxed);
    }

    fn start(&self) {
        let _ = self.0.last_progress.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns the time at which the transport was called.
    pub(in crate::proxy) fn called_at(&self) -> Instant {
        self.0.called_at
    }

    /// Returns the time of the latest frame, or `None` if the transport has not started to send.
    pub(in crate::proxy) fn last_progress(&self) -> Option<Instant> {
        let millis = self.0.last_progress.load(Ordering::Relaxed).checked_sub(1)?;
        self.0.called_at.checked_add(Duration::from_millis(millis))
    }

    /// Returns the reason why the body failed, if it did.
    pub(in crate::proxy) fn fault(&self) -> Option<UpstreamFault> {
        self.0.fault.get().copied()
    }
}

impl<B> RequestBody<B> {
    pub(in crate::proxy) fn new(inner: B, rules: &Arc<HeaderRules>) -> (Self, RequestProgress) {
        let progress = RequestProgress::new();
        (Self { inner, progress: progress.clone(), rules: rules.clone() }, progress)
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
        this.progress.start();
        let frame = ready!(this.inner.poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(mut frame) => {
                this.progress.record_frame();
                if let Some(trailers) = frame.trailers_mut() {
                    this.rules.apply_to_trailers(trailers);
                }
                Ok(frame)
            }
            Err(error) => {
                let error = error.into();
                let fault = request_body_fault(&*error);
                tracing::debug!(
                    fault = fault.code(),
                    error = %Chain(&*error),
                    "request body failed: aborting the request"
                );
                this.progress.0.fault.get_or_init(|| fault);
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
