use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{TrialKeyAuth, shared::Shared};
use crate::{
    clock::{Clock, SystemClock},
    error::ProblemJson,
};

/// Lets only requests with an issued key through. See the [module](super) for its rules.
pub struct TrialKeyAuthLayer<K, R = ProblemJson> {
    shared: Arc<Shared<K, R>>,
}

impl<K> TrialKeyAuthLayer<K> {
    /// Looks keys up in `store`.
    pub fn new(store: K) -> Self {
        Self::from_shared(Shared { store, reject: ProblemJson, clock: Arc::new(SystemClock) })
    }
}

impl<K, R> TrialKeyAuthLayer<K, R> {
    fn from_shared(shared: Shared<K, R>) -> Self {
        Self { shared: Arc::new(shared) }
    }
}

impl<K: Clone, R: Clone> TrialKeyAuthLayer<K, R> {
    /// Renders rejections in another form.
    #[must_use]
    pub fn reject<R2>(self, reject: R2) -> TrialKeyAuthLayer<K, R2> {
        let Shared { store, clock, .. } = Arc::unwrap_or_clone(self.shared);
        TrialKeyAuthLayer::from_shared(Shared { store, reject, clock })
    }

    /// Judges expiry by another clock.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        let shared = Arc::unwrap_or_clone(self.shared);
        Self::from_shared(Shared { clock: Arc::new(clock), ..shared })
    }
}

impl<K, R> Clone for TrialKeyAuthLayer<K, R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K, R> fmt::Debug for TrialKeyAuthLayer<K, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrialKeyAuthLayer")
    }
}

impl<S, K, R> Layer<S> for TrialKeyAuthLayer<K, R> {
    type Service = TrialKeyAuth<S, K, R>;

    fn layer(&self, inner: S) -> Self::Service {
        TrialKeyAuth { inner, shared: self.shared.clone() }
    }
}
