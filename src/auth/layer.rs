use std::{fmt, sync::Arc, time::SystemTime};

use http::{Method, Response};
use tower_layer::Layer;

use super::{AuthRejection, ResponseBody, TrialKeyAuth};
use crate::{
    clock::{Clock, SystemClock},
    error::{ProblemJson, Reject, Rejection, StoreError},
    key::{Checksum, KeyRecord, SecretKey},
    request::RequestContext,
};

/// Layer that applies [`TrialKeyAuth`]: only requests with an issued key reach the inner service.
///
/// See the [module](super) for its rules.
#[derive(Clone)]
pub struct TrialKeyAuthLayer<K, R = ProblemJson> {
    pub(super) store: K,
    reject: R,
    pub(super) clock: Arc<dyn Clock>,
}

impl<K> TrialKeyAuthLayer<K> {
    /// Creates a layer that looks keys up in `store`.
    pub fn new(store: K) -> Self {
        Self { store, reject: ProblemJson, clock: Arc::new(SystemClock) }
    }
}

impl<K, R> TrialKeyAuthLayer<K, R> {
    /// Renders rejections with `reject`, which is [`ProblemJson`] by default.
    #[must_use]
    pub fn reject<R2>(self, reject: R2) -> TrialKeyAuthLayer<K, R2> {
        TrialKeyAuthLayer { store: self.store, reject, clock: self.clock }
    }

    /// Compares the expiry of keys with `clock`, which is [`SystemClock`] by default.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }
}

impl<K, R: Reject> TrialKeyAuthLayer<K, R> {
    /// Admits the request with the record that was found, or returns the rejection.
    pub(super) fn admit(
        &self,
        context: &RequestContext,
        key: &SecretKey,
        found: Result<Option<Arc<KeyRecord>>, StoreError>,
        at: SystemTime,
    ) -> Result<(), AuthRejection> {
        match found {
            Ok(Some(record)) if record.disabled => {
                context.set_key_id(record.id.clone());
                Err(AuthRejection::DisabledKey)
            }
            Ok(Some(record)) if record.is_expired(at) => {
                context.set_key_id(record.id.clone());
                Err(AuthRejection::ExpiredKey)
            }
            Ok(Some(record)) => {
                context.set_key(record);
                Ok(())
            }
            Ok(None) if key.checksum() == Checksum::Mistyped => Err(AuthRejection::MistypedKey),
            Ok(None) => Err(AuthRejection::InvalidKey),
            Err(error) => {
                tracing::warn!(source = ?error, "key lookup failed: rejecting the request");
                Err(AuthRejection::Store(error))
            }
        }
    }

    /// Renders a rejection of a request with this method.
    pub(super) fn respond<B>(
        &self,
        method: &Method,
        rejection: &AuthRejection,
    ) -> Response<ResponseBody<B>> {
        ResponseBody::respond(method, Rejection::from(rejection).render(&self.reject))
    }
}

impl<S, K: Clone, R: Clone> Layer<S> for TrialKeyAuthLayer<K, R> {
    type Service = TrialKeyAuth<S, K, R>;

    fn layer(&self, inner: S) -> Self::Service {
        TrialKeyAuth { inner, layer: Arc::new(self.clone()) }
    }
}

impl<K, R> fmt::Debug for TrialKeyAuthLayer<K, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrialKeyAuthLayer").finish_non_exhaustive()
    }
}
