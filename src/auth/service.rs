use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    AuthRejection, ResponseBody, ResponseFuture, TrialKeyAuthLayer, credential::take_key,
    future::Lookup,
};
use crate::{
    error::StoreError,
    key::{Checksum, KeyRecord, SecretKey},
    request::RequestContext,
    store::KeyStore,
};

/// Middleware that passes only requests with an issued key to its inner service.
///
/// See the [module](super) for its rules.
#[derive(Clone)]
pub struct TrialKeyAuth<S> {
    pub(super) inner: S,
    pub(super) layer: Arc<TrialKeyAuthLayer>,
}

impl<S> TrialKeyAuth<S> {
    /// Creates the middleware around `inner`, which looks keys up in `store`.
    pub fn new(inner: S, store: impl KeyStore) -> Self {
        Self { inner, layer: Arc::new(TrialKeyAuthLayer::new(store)) }
    }

    inner_accessors!(S);
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for TrialKeyAuth<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, S::Future, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let layer = &self.layer;
        let context = RequestContext::of(request.extensions_mut());
        let at = context.received_at_by(&*layer.clock);
        let key = match take_key(&*layer.source, &mut request) {
            Ok(Some(key)) => key,
            Ok(None) if layer.is_optional => {
                return ResponseFuture::calling(self.inner.call(request));
            }
            Ok(None) => {
                return ResponseFuture::rejected(layer, &request, &AuthRejection::MissingKey);
            }
            Err(rejection) => return ResponseFuture::rejected(layer, &request, &rejection),
        };
        match layer.store.find(&key).now_or_never() {
            Ok(found) => match admit(&context, &key, found, at) {
                Ok(()) => ResponseFuture::calling(self.inner.call(request)),
                Err(rejection) => ResponseFuture::rejected(layer, &request, &rejection),
            },
            Err(found) => {
                let layer = layer.clone();
                let clone = self.inner.clone();
                let inner = mem::replace(&mut self.inner, clone);
                ResponseFuture::looking_up(Lookup {
                    found,
                    context,
                    key,
                    at,
                    layer,
                    inner,
                    request,
                })
            }
        }
    }
}

/// Admits the request with the record that was found, or returns the rejection.
pub(super) fn admit(
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

impl<S: fmt::Debug> fmt::Debug for TrialKeyAuth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrialKeyAuth").field("inner", &self.inner).finish_non_exhaustive()
    }
}
