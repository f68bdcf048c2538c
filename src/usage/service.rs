use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    RequestBody, ResponseFuture, UsageObserver, UsageSink,
    recorder::{Recorder, Shared},
};
use crate::body::ObservedBody;

/// The service of [`UsageRecorderLayer`](super::UsageRecorderLayer).
pub struct UsageRecorder<S, U> {
    pub(super) inner: S,
    pub(super) shared: Arc<Shared<U>>,
}

impl<S, U, ReqBody, ResBody> Service<Request<ReqBody>> for UsageRecorder<S, U>
where
    S: Service<Request<RequestBody<ReqBody>>, Response = Response<ResBody>>,
    U: UsageSink,
    ReqBody: Body,
    ResBody: Body,
    ResBody::Data: Buf,
{
    type Response = Response<ObservedBody<ResBody, UsageObserver<U>>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, U>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (recorder, request) = Recorder::start(self.shared.clone(), request);
        ResponseFuture::new(self.inner.call(request), recorder)
    }
}

impl<S: Clone, U> Clone for UsageRecorder<S, U> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug, U> fmt::Debug for UsageRecorder<S, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageRecorder").field("inner", &self.inner).finish_non_exhaustive()
    }
}
