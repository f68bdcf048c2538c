use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{ResponseBody, ResponseFuture, TrialKeyAuthLayer, credential};
use crate::{
    error::{ProblemJson, Reject},
    request::RequestContext,
    store::KeyStore,
};

/// Middleware that passes only requests with an issued key to its inner service.
///
/// See the [module](super) for its rules.
pub struct TrialKeyAuth<S, K, R = ProblemJson> {
    pub(super) inner: S,
    pub(super) layer: Arc<TrialKeyAuthLayer<K, R>>,
}

impl<S, K> TrialKeyAuth<S, K> {
    /// Creates the middleware around `inner`, which looks keys up in `store`.
    pub fn new(inner: S, store: K) -> Self {
        Self { inner, layer: Arc::new(TrialKeyAuthLayer::new(store)) }
    }
}

impl<S, K, R> TrialKeyAuth<S, K, R> {
    /// Returns a reference to the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

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
        let layer = &self.layer;
        let context = RequestContext::of(request.extensions_mut());
        let at = context.received_at_by(&*layer.clock);
        let key = match credential::take(&mut request) {
            Ok(key) => key,
            Err(rejection) => {
                let response = layer.respond(request.method(), &rejection);
                return ResponseFuture::rejected(response);
            }
        };
        match layer.store.find(&key).now_or_never() {
            Ok(found) => match layer.admit(&context, &key, found, at) {
                Ok(()) => ResponseFuture::calling(self.inner.call(request)),
                Err(rejection) => {
                    ResponseFuture::rejected(layer.respond(request.method(), &rejection))
                }
            },
            Err(lookup) => {
                let clone = self.inner.clone();
                let inner = mem::replace(&mut self.inner, clone);
                ResponseFuture::looking_up(layer.clone(), lookup, context, key, inner, request)
            }
        }
    }
}

impl<S: Clone, K, R> Clone for TrialKeyAuth<S, K, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, K, R> fmt::Debug for TrialKeyAuth<S, K, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrialKeyAuth").field("inner", &self.inner).finish_non_exhaustive()
    }
}
