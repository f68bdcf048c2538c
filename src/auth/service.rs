use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    ResponseFuture, credential,
    shared::{Refusal, Shared, identify},
};
use crate::{body::ResponseBody, clock::ReceivedAt, error::Reject, store::KeyStore};

/// The service of [`TrialKeyAuthLayer`](super::TrialKeyAuthLayer).
pub struct TrialKeyAuth<S, K, R> {
    pub(super) inner: S,
    pub(super) shared: Arc<Shared<K, R>>,
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
        let at = ReceivedAt::of(request.extensions_mut(), &*self.shared.clock);
        let key = match credential::take(&mut request) {
            Ok(key) => key,
            Err(rejection) => {
                let refusal = Refusal(rejection, None);
                let response = self.shared.refuse(request.method(), refusal);
                return ResponseFuture::rejected(response);
            }
        };
        match self.shared.store.find(&key).now_or_never() {
            Ok(found) => match self.shared.admit(&key, found, at) {
                Ok(record) => {
                    let request = identify(request, record.clone());
                    ResponseFuture::calling(self.inner.call(request), record)
                }
                Err(refusal) => {
                    let response = self.shared.refuse(request.method(), refusal);
                    ResponseFuture::rejected(response)
                }
            },
            Err(find) => {
                let clone = self.inner.clone();
                let inner = mem::replace(&mut self.inner, clone);
                ResponseFuture::finding(self.shared.clone(), find, key, at, inner, request)
            }
        }
    }
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
