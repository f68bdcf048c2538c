use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use http::{Extensions, Request, Response};
use tower_service::Service;

use super::{AuthRejection, credential, future::ResponseFuture};
use crate::{
    body::ResponseBody,
    clock::{Clock, ReceivedAt},
    error::{Reject, StoreError},
    key::{Checksum, KeyRecord, SecretKey},
    store::KeyStore,
};

/// The service of [`TrialKeyAuthLayer`](super::TrialKeyAuthLayer).
pub struct TrialKeyAuth<S, K, R> {
    pub(super) inner: S,
    pub(super) shared: Arc<Shared<K, R>>,
}

#[derive(Clone)]
pub(super) struct Shared<K, R> {
    pub(super) store: K,
    pub(super) reject: R,
    pub(super) clock: Arc<dyn Clock>,
}

impl<K, R: Reject> Shared<K, R> {
    /// Turns the store's answer into the record to go on with, or into the refusal.
    pub(super) fn admit(
        &self,
        key: &SecretKey,
        found: Result<Option<Arc<KeyRecord>>, StoreError>,
        at: SystemTime,
    ) -> Result<Arc<KeyRecord>, Refusal> {
        match found {
            Ok(Some(record)) if record.disabled => {
                Err(Refusal(AuthRejection::DisabledKey, Some(record)))
            }
            Ok(Some(record)) if record.is_expired(at) => {
                Err(Refusal(AuthRejection::ExpiredKey, Some(record)))
            }
            Ok(Some(record)) => Ok(record),
            Ok(None) if key.checksum() == Checksum::Mistyped => {
                Err(Refusal(AuthRejection::MistypedKey, None))
            }
            Ok(None) => Err(Refusal(AuthRejection::InvalidKey, None)),
            Err(error) => {
                tracing::warn!(source = ?error, "no key could be looked up");
                Err(Refusal(AuthRejection::Store(error), None))
            }
        }
    }

    pub(super) fn refuse<B>(&self, refusal: Refusal) -> Response<ResponseBody<B>> {
        let Refusal(rejection, record) = refusal;
        let mut response = ResponseBody::answer(self.reject.reject((&rejection).into()));
        if let Some(record) = record {
            response.extensions_mut().insert(record);
        }
        response
    }
}

/// Why a request is refused, and whose it was if that is known.
pub(super) struct Refusal(AuthRejection, Option<Arc<KeyRecord>>);

impl<S, K, R, ReqBody, ResBody> Service<Request<ReqBody>> for TrialKeyAuth<S, K, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    K: KeyStore,
    R: Reject,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, K, R, ReqBody, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let at = ReceivedAt::of(request.extensions_mut(), &*self.shared.clock);
        let key = match credential::take(request.headers_mut()) {
            Ok(key) => key,
            Err(rejection) => {
                let refusal = Refusal(rejection, None);
                return ResponseFuture::rejected(self.shared.refuse(refusal));
            }
        };
        match self.shared.store.find(&key).at_hand() {
            Ok(found) => match self.shared.admit(&key, found, at) {
                Ok(record) => {
                    let request = identify(request, record.clone());
                    ResponseFuture::calling(self.inner.call(request), record)
                }
                Err(refusal) => ResponseFuture::rejected(self.shared.refuse(refusal)),
            },
            Err(find) => {
                let clone = self.inner.clone();
                let inner = mem::replace(&mut self.inner, clone);
                ResponseFuture::finding(self.shared.clone(), find, key, at, inner, request)
            }
        }
    }
}

/// Puts the record where the inner service finds it.
pub(super) fn identify<B>(mut request: Request<B>, record: Arc<KeyRecord>) -> Request<B> {
    let extensions: &mut Extensions = request.extensions_mut();
    extensions.insert(record);
    request
}

impl<S: Clone, K, R> Clone for TrialKeyAuth<S, K, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug, K, R> fmt::Debug for TrialKeyAuth<S, K, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrialKeyAuth").field("inner", &self.inner).finish_non_exhaustive()
    }
}
