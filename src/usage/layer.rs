use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{UsageRecorder, metrics::Metrics};
use crate::{
    clock::{Clock, SystemClock},
    store::UsageSink,
};

/// Layer that applies [`UsageRecorder`]: it records one event for each request.
///
/// See the [module](super) for its rules. `W` is [`WatchRequests`] if request bodies are watched.
#[derive(Clone)]
pub struct UsageRecorderLayer<W = ()> {
    pub(super) sink: Arc<dyn UsageSink>,
    pub(super) clock: Arc<dyn Clock>,
    /// Shared by all services, so that together they keep to the maximum number of labels.
    pub(super) metrics: Arc<Metrics>,
    pub(super) watch: W,
}

/// Marks a [`UsageRecorderLayer`] that watches request bodies.
#[derive(Clone, Copy, Debug)]
pub struct WatchRequests(());

impl UsageRecorderLayer {
    /// Creates a layer that records events in `sink`.
    pub fn new(sink: impl UsageSink) -> Self {
        Self {
            sink: Arc::new(sink),
            clock: Arc::new(SystemClock),
            metrics: Arc::new(Metrics::new()),
            watch: (),
        }
    }

    /// Watches request bodies: events have their length and the model that they request. The inner service
    /// gets them as [`RequestBody`](super::RequestBody).
    #[must_use]
    pub fn watch_requests(self) -> UsageRecorderLayer<WatchRequests> {
        let Self { sink, clock, metrics, watch: () } = self;
        UsageRecorderLayer { sink, clock, metrics, watch: WatchRequests(()) }
    }
}

impl<W> UsageRecorderLayer<W> {
    /// Takes the time of receipt from `clock`, which is [`SystemClock`] by default.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }
}

impl<S, W: Clone> Layer<S> for UsageRecorderLayer<W> {
    type Service = UsageRecorder<S, W>;

    fn layer(&self, inner: S) -> Self::Service {
        UsageRecorder { inner, layer: Arc::new(self.clone()) }
    }
}

impl<W> fmt::Debug for UsageRecorderLayer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsageRecorderLayer")
    }
}
