use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{UsageFormat, UsageRecorder, metrics::Metrics};
use crate::{
    clock::{Clock, SystemClock},
    store::UsageSink,
};

/// Layer that applies [`UsageRecorder`]: it records one event for each request.
///
/// See the [module](super) for its rules. `W` is [`WatchRequests`] if request bodies are watched.
#[derive(Clone)]
pub struct UsageRecorderLayer<W = ()> {
    config: Config,
    watch: W,
}

#[derive(Clone)]
pub(super) struct Config {
    pub(super) sink: Arc<dyn UsageSink>,
    pub(super) format: Option<Arc<dyn UsageFormat>>,
    pub(super) clock: Arc<dyn Clock>,
    /// Shared by all services, so that together they keep to the maximum number of labels.
    pub(super) metrics: Arc<Metrics>,
}

/// Marks a [`UsageRecorderLayer`] that watches request bodies.
#[derive(Clone, Copy, Debug)]
pub struct WatchRequests(());

impl UsageRecorderLayer {
    /// Creates a layer that records events in `sink`.
    pub fn new(sink: impl UsageSink) -> Self {
        sink.expect_events();
        let config = Config {
            sink: Arc::new(sink),
            format: None,
            clock: Arc::new(SystemClock),
            metrics: Arc::new(Metrics::new()),
        };
        Self { config, watch: () }
    }

    /// Watches request bodies: events have their length and the model that they request. The inner service
    /// gets them as [`RequestBody`](super::RequestBody).
    #[must_use]
    pub fn watch_requests(self) -> UsageRecorderLayer<WatchRequests> {
        UsageRecorderLayer { config: self.config, watch: WatchRequests(()) }
    }
}

impl<W> UsageRecorderLayer<W> {
    /// Reads model and tokens of responses in `format`. Without one, the default, they are unknown.
    #[must_use]
    pub fn format(mut self, format: impl UsageFormat) -> Self {
        self.config.format = Some(Arc::new(format));
        self
    }

    /// Takes the time of receipt from `clock`, which is [`SystemClock`] by default.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.config.clock = Arc::new(clock);
        self
    }
}

impl<S, W: Clone> Layer<S> for UsageRecorderLayer<W> {
    type Service = UsageRecorder<S, W>;

    fn layer(&self, inner: S) -> Self::Service {
        UsageRecorder { inner, config: Arc::new(self.config.clone()), _watch: self.watch.clone() }
    }
}

impl<W> fmt::Debug for UsageRecorderLayer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsageRecorderLayer")
    }
}
