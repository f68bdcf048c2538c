use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::shared::{Shared, identify};
use crate::{
    body::ResponseBody,
    error::Reject,
    key::{KeyRecord, SecretKey},
    store::StoreFuture,
};

pin_project! {
    /// Response future of [`TrialKeyAuth`](super::TrialKeyAuth).
    pub struct ResponseFuture<S, K, R, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        state: State<S, S::Future, K, R, ReqBody, ResBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, K, R, ReqBody, ResBody> {
        Rejected { response: Option<Response<ResponseBody<ResBody>>> },
        // Rare, and larger than the others.
        Finding { find: Option<Box<Finding<S, K, R, ReqBody>>> },
        Calling { #[pin] future: F, record: Option<Arc<KeyRecord>> },
    }
}

struct Finding<S, K, R, ReqBody> {
    shared: Arc<Shared<K, R>>,
    find: StoreFuture<Option<Arc<KeyRecord>>>,
    key: SecretKey,
    at: SystemTime,
    inner: S,
    request: Request<ReqBody>,
}

impl<S, K, R, ReqBody, ResBody> ResponseFuture<S, K, R, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
{
    pub(super) fn rejected(response: Response<ResponseBody<ResBody>>) -> Self {
        Self { state: State::Rejected { response: Some(response) } }
    }

    pub(super) fn calling(future: S::Future, record: Arc<KeyRecord>) -> Self {
        Self { state: State::Calling { future, record: Some(record) } }
    }

    pub(super) fn finding(
        shared: Arc<Shared<K, R>>,
        find: StoreFuture<Option<Arc<KeyRecord>>>,
        key: SecretKey,
        at: SystemTime,
        inner: S,
        request: Request<ReqBody>,
    ) -> Self {
        let find = Finding { shared, find, key, at, inner, request };
        Self { state: State::Finding { find: Some(Box::new(find)) } }
    }
}

impl<S, K, R, ReqBody, ResBody> Future for ResponseFuture<S, K, R, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    R: Reject,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    /// # Panics
    ///
    /// When it is polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        const OVER: &str = "`ResponseFuture` polled after it was ready";
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Rejected { response } => {
                    return Poll::Ready(Ok(response.take().expect(OVER)));
                }
                StateProj::Finding { find: slot } => {
                    let find = slot.as_mut().expect(OVER);
                    let found = ready!(Pin::new(&mut find.find).poll(cx));
                    let mut find = *slot.take().expect(OVER);
                    let next = match find.shared.admit(&find.key, found, find.at) {
                        Ok(record) => {
                            let request = identify(find.request, record.clone());
                            let future = find.inner.call(request);
                            State::Calling { future, record: Some(record) }
                        }
                        Err(refusal) => {
                            let response = find.shared.refuse(find.request.method(), refusal);
                            State::Rejected { response: Some(response) }
                        }
                    };
                    state.set(next);
                }
                StateProj::Calling { future, record } => {
                    let mut response = ready!(future.poll(cx))?.map(ResponseBody::passed);
                    response.extensions_mut().insert(record.take().expect(OVER));
                    return Poll::Ready(Ok(response));
                }
            }
        }
    }
}
