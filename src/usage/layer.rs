use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{UsageRecorder, metrics::Metrics};
use crate::clock::{Clock, SystemClock};

/// Layer that applies [`UsageRecorder`]: it records one event for each request.
///
/// See the [module](super) for its rules.
#[derive(Clone)]
pub struct UsageRecorderLayer<U> {
    pub(super) sink: U,
    pub(super) clock: Arc<dyn Clock>,
    /// Shared by all services, so that together they keep to the maximum number of labels.
    pub(super) metrics: Arc<Metrics>,
}

impl<U> UsageRecorderLayer<U> {
    /// Creates a layer that records events in `sink`.
    pub fn new(sink: U) -> Self {
        Self { sink, clock: Arc::new(SystemClock), metrics: Arc::new(Metrics::new()) }
    }

    /// Takes the time of receipt from `clock`, which is [`SystemClock`] by default.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }
}

impl<U> fmt::Debug for UsageRecorderLayer<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsageRecorderLayer")
    }
}

impl<S, U: Clone> Layer<S> for UsageRecorderLayer<U> {
    type Service = UsageRecorder<S, U>;

    fn layer(&self, inner: S) -> Self::Service {
        UsageRecorder { inner, layer: Arc::new(self.clone()) }
    }
}
