use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, Shared as SharedFuture};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use tokio::time::Instant;
use tower_service::Service;

use super::error::{self, BoxError};
use crate::{
    body::ResponseBody,
    error::{Reject, UpstreamFault},
};

/// Keeps the answer to one request, for example the upstream's list of models.
///
/// However many ask at once, one request goes to the inner service. When a refresh fails, the last
/// good answer is served; only if there is none, the failure is. Whatever is asked of it, it sends
/// the one request that it was made with: nothing of a client's request reaches the inner service.
pub struct CachedGet<S, M, R> {
    shared: Arc<Shared<S, M, R>>,
}

struct Shared<S, M, R> {
    service: S,
    request: M,
    reject: R,
    time_to_live: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Option<(Instant, Response<Bytes>)>,
    flight: Option<SharedFuture<BoxFuture<'static, Response<Bytes>>>>,
}

/// The body of a kept answer.
pub type CachedBody = ResponseBody<String>;

/// The largest answer that is kept, in bytes.
const LARGEST: usize = 4 << 20;
/// How long a stale answer is served before the next try after a failed one.
const RETRY: Duration = Duration::from_secs(5);

impl<S, M, R> CachedGet<S, M, R> {
    /// Asks `service` with what `request` makes, at most once every `time_to_live`.
    pub fn new(service: S, request: M, time_to_live: Duration, reject: R) -> Self {
        let state = Mutex::default();
        Self { shared: Arc::new(Shared { service, request, reject, time_to_live, state }) }
    }
}

impl<S, M, R> Shared<S, M, R> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a good answer; after a failure the last good one goes on for a while.
    fn land(&self, answer: Response<Bytes>) -> Response<Bytes> {
        let mut state = self.lock();
        state.flight = None;
        let now = Instant::now();
        if answer.status() == StatusCode::OK {
            state.kept = Some((now + self.time_to_live, answer.clone()));
            return answer;
        }
        match &mut state.kept {
            Some((until, kept)) => {
                *until = now + RETRY;
                kept.clone()
            }
            None => answer,
        }
    }
}

impl<S, M, R, B, ReqBody, ResBody> Service<Request<B>> for CachedGet<S, M, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    M: Fn() -> Request<ReqBody> + Send + Sync + 'static,
    R: Reject + Send + Sync + 'static,
    ReqBody: Send + 'static,
    ResBody: Body<Data: Send> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<CachedBody>;
    type Error = Infallible;
    type Future = CachedGetFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let mut state = self.shared.lock();
        if let Some((until, kept)) = &state.kept
            && Instant::now() < *until
        {
            return CachedGetFuture(std::future::ready(kept.clone()).boxed().shared());
        }
        let flight = state.flight.get_or_insert_with(|| {
            let shared = self.shared.clone();
            async move {
                let answer = fetch(&shared).await;
                shared.land(answer)
            }
            .boxed()
            .shared()
        });
        CachedGetFuture(flight.clone())
    }
}

async fn fetch<S, M, R, ReqBody, ResBody>(shared: &Shared<S, M, R>) -> Response<Bytes>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    M: Fn() -> Request<ReqBody>,
    R: Reject,
    ResBody: Body,
    ResBody::Error: Into<BoxError>,
{
    match try_fetch(shared).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(?error, "an answer to be kept could not be had");
            let none = http::HeaderMap::new();
            error::answer(&shared.reject, UpstreamFault::Protocol, None, &none)
        }
    }
}

async fn try_fetch<S, M, R, ReqBody, ResBody>(
    shared: &Shared<S, M, R>,
) -> Result<Response<Bytes>, BoxError>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    M: Fn() -> Request<ReqBody>,
    ResBody: Body,
    ResBody::Error: Into<BoxError>,
{
    let mut service = shared.service.clone();
    std::future::poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
    let response = service.call((shared.request)()).await.map_err(Into::into)?;
    let (head, body) = response.into_parts();
    let bytes = Limited::new(body, LARGEST).collect().await?.to_bytes();
    Ok(Response::from_parts(head, bytes))
}

/// Response future of [`CachedGet`].
pub struct CachedGetFuture(SharedFuture<BoxFuture<'static, Response<Bytes>>>);

impl Future for CachedGetFuture {
    type Output = Result<Response<CachedBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| Ok(ResponseBody::answer(answer)))
    }
}

impl<S, M, R> Clone for CachedGet<S, M, R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S, M, R> fmt::Debug for CachedGet<S, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedGet")
            .field("time_to_live", &self.shared.time_to_live)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CachedGetFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CachedGetFuture")
    }
}
