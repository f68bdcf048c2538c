use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{UsageRecorder, recorder::Shared};
use crate::clock::{Clock, SystemClock};

/// Tells of every request once, at its true end. See the [module](super) for its rules.
pub struct UsageRecorderLayer<U> {
    shared: Arc<Shared<U>>,
}

impl<U> UsageRecorderLayer<U> {
    /// Hands events to `sink`.
    pub fn new(sink: U) -> Self {
        Self { shared: Arc::new(Shared::new(sink, Arc::new(SystemClock))) }
    }
}

impl<U: Clone> UsageRecorderLayer<U> {
    /// Takes the time of receipt from another clock.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        let sink = self.shared.sink.clone();
        Self { shared: Arc::new(Shared::new(sink, Arc::new(clock))) }
    }
}

impl<U> Clone for UsageRecorderLayer<U> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<U> fmt::Debug for UsageRecorderLayer<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsageRecorderLayer")
    }
}

impl<S, U> Layer<S> for UsageRecorderLayer<U> {
    type Service = UsageRecorder<S, U>;

    fn layer(&self, inner: S) -> Self::Service {
        UsageRecorder { inner, shared: self.shared.clone() }
    }
}
