use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use tokio::time::Instant;
use tower_service::Service;

use super::error::{Chain, fault_response, rejection};
use crate::{
    content::media_type,
    error::{ProblemJson, Reject, RejectedRequest, UpstreamFault},
};

/// Default time to live of a cached response.
const TIME_TO_LIVE: Duration = Duration::from_secs(600);
/// Delay after a failed refresh.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// Default maximum length of a body, in bytes.
const MAX_BYTES: usize = 4 << 20;

type FetchResult = Result<Response<Bytes>, UpstreamFault>;
type FetchFuture = BoxFuture<'static, FetchResult>;

/// A cache of the response of one `GET`, which is requested at most once at a time.
///
/// Callers that find no fresh response share one call to the service. No task is spawned: the call
/// makes progress while any of the callers waits, and is cancelled when the last one is dropped. Only
/// a 200 is cached. If a refresh yields anything else, the stale response, or without one that of the
/// failure, is served for another 5 s before the next attempt.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::service_fn;
/// use tower_quota::proxy::CachedGet;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let models = service_fn(|_: Request<Full<Bytes>>| async {
///     Ok(Response::new(Full::new(Bytes::from("[]"))))
/// });
/// let request = || {
///     let mut request = Request::new(Full::default());
///     *request.uri_mut() = "/v1/models".parse().unwrap();
///     request
/// };
/// let cached = CachedGet::new(models, request);
/// assert_eq!(cached.get().await.body(), "[]");
/// # }
/// ```
#[derive(Clone)]
pub struct CachedGet {
    fetch: Arc<dyn Fn(Accepted) -> FetchFuture + Send + Sync>,
    reject: Arc<dyn Reject>,
    time_to_live: Duration,
    accepted: Accepted,
    state: Arc<Mutex<State>>,
}

/// Which responses are accepted.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    max_bytes: usize,
    json_only: bool,
}

#[derive(Default)]
struct State {
    cached: Option<Cached>,
    in_flight: Option<WeakShared<FetchFuture>>,
}

struct Cached {
    result: FetchResult,
    fresh_until: Instant,
}

impl CachedGet {
    /// Creates a cache of the response of `service` to the request that `request` builds, for 10
    /// minutes and up to 4 MiB.
    pub fn new<S, B, RB>(
        service: S,
        request: impl Fn() -> Request<B> + Send + Sync + 'static,
    ) -> Self
    where
        S: Service<Request<B>, Response = Response<RB>, Error = Infallible>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send,
        B: Send + 'static,
        RB: Body + Send + 'static,
        RB::Data: Send,
        RB::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let fetch = move |accepted| {
            let service = service.clone();
            fetch(service, request(), accepted).boxed()
        };
        Self {
            fetch: Arc::new(fetch),
            reject: Arc::new(ProblemJson),
            time_to_live: TIME_TO_LIVE,
            accepted: Accepted { max_bytes: MAX_BYTES, json_only: false },
            state: Arc::default(),
        }
    }

    /// Sets how long a response is fresh.
    #[must_use]
    pub fn time_to_live(self, time_to_live: Duration) -> Self {
        Self { time_to_live, ..self }
    }

    /// Sets the maximum length of the body, in bytes. A longer body counts as a failure.
    #[must_use]
    pub fn max_bytes(self, max_bytes: usize) -> Self {
        Self { accepted: Accepted { max_bytes, ..self.accepted }, ..self }
    }

    /// Accepts only JSON, by its content type and by its text. Any other response counts as a failure,
    /// so that no page which a browser would show or run is served to everybody.
    #[must_use]
    pub fn json_only(self) -> Self {
        Self { accepted: Accepted { json_only: true, ..self.accepted }, ..self }
    }

    /// Sets the renderer of the response when the service's broke off, was too long, or was not the
    /// JSON that is required.
    #[must_use]
    pub fn reject(self, reject: impl Reject) -> Self {
        Self { reject: Arc::new(reject), ..self }
    }

    /// Returns the cached response, or a new one.
    pub async fn get(&self) -> Response<Bytes> {
        let result = match self.cached_or_fetch() {
            Ok(cached) => cached,
            Err(fetch) => fetch.await,
        };
        result.unwrap_or_else(|fault| {
            let extensions = Extensions::new();
            let request = RejectedRequest::forwarded(&Method::GET, &extensions);
            fault_response(&*self.reject, fault, rejection(fault, None), request)
        })
    }

    fn cached_or_fetch(&self) -> Result<FetchResult, Shared<FetchFuture>> {
        let mut state = lock(&self.state);
        match &state.cached {
            Some(cached) if Instant::now() < cached.fresh_until => {
                return Ok(cached.result.clone());
            }
            _ => {}
        }
        let in_flight = state.in_flight.as_ref().and_then(WeakShared::upgrade);
        Err(in_flight.unwrap_or_else(|| {
            let fetch = self.start_fetch();
            state.in_flight = fetch.downgrade();
            fetch
        }))
    }

    fn start_fetch(&self) -> Shared<FetchFuture> {
        let fetch = (self.fetch)(self.accepted);
        let state = Arc::clone(&self.state);
        let time_to_live = self.time_to_live;
        let fetch = async move {
            let result = fetch.await;
            lock(&state).store(result, time_to_live)
        };
        fetch.boxed().shared()
    }
}

impl State {
    /// Stores the result of a fetch, and returns the one to serve.
    fn store(&mut self, result: FetchResult, time_to_live: Duration) -> FetchResult {
        self.in_flight = None;
        let is_ok = |result: &FetchResult| {
            result.as_ref().is_ok_and(|response| response.status() == StatusCode::OK)
        };
        let (result, time) = match self.cached.take() {
            _ if is_ok(&result) => (result, time_to_live),
            Some(stale) if is_ok(&stale.result) => (stale.result, RETRY_DELAY.min(time_to_live)),
            _ => (result, RETRY_DELAY.min(time_to_live)),
        };
        self.cached = Some(Cached { result: result.clone(), fresh_until: Instant::now() + time });
        result
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn fetch<S, B, RB>(mut service: S, request: Request<B>, accepted: Accepted) -> FetchResult
where
    S: Service<Request<B>, Response = Response<RB>, Error = Infallible>,
    RB: Body,
    RB::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
    let Ok(response) = service.call(request).await;
    let (mut head, body) = response.into_parts();
    let body = Limited::new(body, accepted.max_bytes).collect().await.map_err(|error| {
        tracing::warn!(error = %Chain(&*error), "reading the response failed: not caching it");
        UpstreamFault::Protocol
    })?;
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::DATE);
    let body = body.to_bytes();
    if accepted.json_only && !is_json(&head.headers, &body) {
        tracing::warn!(status = head.status.as_u16(), "response is not JSON: not caching it");
        return Err(UpstreamFault::Protocol);
    }
    Ok(Response::from_parts(head, body))
}

/// Whether the content type is JSON and the body is valid.
fn is_json(headers: &HeaderMap, body: &[u8]) -> bool {
    let is_declared = media_type(headers).is_some_and(|media_type| {
        media_type.eq_ignore_ascii_case(b"application/json")
            || media_type.to_ascii_lowercase().ends_with(b"+json")
    });
    is_declared && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

impl fmt::Debug for CachedGet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedGet")
            .field("time_to_live", &self.time_to_live)
            .field("accepted", &self.accepted)
            .finish_non_exhaustive()
    }
}
