use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::TrialKeyAuth;
use crate::{
    clock::{Clock, SystemClock},
    error::{ProblemJson, Reject},
    store::KeyStore,
};

/// Layer that applies [`TrialKeyAuth`]: only requests with an issued key reach the inner service.
///
/// See the [module](super) for its rules.
#[derive(Clone)]
pub struct TrialKeyAuthLayer {
    pub(super) store: Arc<dyn KeyStore>,
    pub(super) reject: Arc<dyn Reject>,
    pub(super) clock: Arc<dyn Clock>,
}

impl TrialKeyAuthLayer {
    /// Creates a layer that looks keys up in `store`.
    pub fn new(store: impl KeyStore) -> Self {
        Self { store: Arc::new(store), reject: Arc::new(ProblemJson), clock: Arc::new(SystemClock) }
    }

    /// Renders rejections with `reject`, which is [`ProblemJson`] by default.
    #[must_use]
    pub fn reject(self, reject: impl Reject) -> Self {
        Self { reject: Arc::new(reject), ..self }
    }

    /// Compares the expiry of keys with `clock`, which is [`SystemClock`] by default.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }
}

impl<S> Layer<S> for TrialKeyAuthLayer {
    type Service = TrialKeyAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TrialKeyAuth { inner, layer: Arc::new(self.clone()) }
    }
}

impl fmt::Debug for TrialKeyAuthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrialKeyAuthLayer").finish_non_exhaustive()
    }
}
