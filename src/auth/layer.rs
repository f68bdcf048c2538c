use std::{fmt, sync::Arc, time::SystemTime};

use http::{Method, Request, Response};
use tower_layer::Layer;

use super::{AuthRejection, ResponseBody, TrialKeyAuth};
use crate::{
    clock::{Clock, SystemClock},
    error::{ProblemJson, Reject, Rejection, StoreError},
    key::{Checksum, KeyRecord, SecretKey},
    store::Units,
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
    /// Returns the record with which the request goes on, or the rejection.
    pub(super) fn admit(
        &self,
        key: &SecretKey,
        found: Result<Option<Arc<KeyRecord>>, StoreError>,
        at: SystemTime,
    ) -> Result<Arc<KeyRecord>, RejectedKey> {
        match found {
            Ok(Some(record)) if record.disabled => {
                Err(RejectedKey(AuthRejection::DisabledKey, Some(record)))
            }
            Ok(Some(record)) if record.is_expired(at) => {
                Err(RejectedKey(AuthRejection::ExpiredKey, Some(record)))
            }
            Ok(Some(record)) => Ok(record),
            Ok(None) if key.checksum() == Checksum::Mistyped => {
                Err(AuthRejection::MistypedKey.into())
            }
            Ok(None) => Err(AuthRejection::InvalidKey.into()),
            Err(error) => {
                tracing::warn!(source = ?error, "key lookup failed: rejecting the request");
                Err(AuthRejection::Store(error).into())
            }
        }
    }

    /// Renders a rejection of a request with this method.
    pub(super) fn respond<B>(
        &self,
        method: &Method,
        RejectedKey(rejection, record): RejectedKey,
    ) -> Response<ResponseBody<B>> {
        let response = Rejection::from(&rejection).render(&self.reject);
        let mut response = ResponseBody::respond(method, response);
        if let Some(record) = record {
            response.extensions_mut().insert(record);
        }
        response
    }
}

/// A rejection, and the record of the rejected key if there is one.
pub(super) struct RejectedKey(AuthRejection, Option<Arc<KeyRecord>>);

impl From<AuthRejection> for RejectedKey {
    fn from(rejection: AuthRejection) -> Self {
        Self(rejection, None)
    }
}

/// Puts the record where the inner service finds it.
pub(super) fn identify<B>(mut request: Request<B>, record: Arc<KeyRecord>) -> Request<B> {
    // A recorder outside sees no extension that is put in here.
    if let Some(units) = request.extensions().get::<Units>() {
        units.name_key(&record.id);
    }
    request.extensions_mut().insert(record);
    request
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
