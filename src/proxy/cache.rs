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
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use tokio::time::Instant;
use tower_service::Service;

use super::error::{Chain, faulty, rejection};
use crate::{
    content::media_type,
    error::{ProblemJson, Reject, UpstreamFault},
};

const TIME_TO_LIVE: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 4 << 20;

type Fetched = Result<Response<Bytes>, UpstreamFault>;
type Flight = BoxFuture<'static, Fetched>;

/// The answer of one `GET`, kept for a while and asked for by one caller at a time.
///
/// Callers that find no fresh answer share one call to the service. No task is spawned: the call
/// moves on while any of them waits, and ends when the last one leaves. Only a 200 is kept. If a
/// refresh yields anything else, the old answer, or without one the failure's, is served on, and
/// the next attempt is made 5 s later at the earliest.
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
    fetch: Arc<dyn Fn(Accepted) -> Flight + Send + Sync>,
    reject: Arc<dyn Reject + Send + Sync>,
    time_to_live: Duration,
    accepted: Accepted,
    state: Arc<Mutex<State>>,
}

/// Which answers are taken.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    max_bytes: usize,
    json_only: bool,
}

#[derive(Default)]
struct State {
    kept: Option<Kept>,
    flight: Option<WeakShared<Flight>>,
}

struct Kept {
    answer: Fetched,
    fresh_until: Instant,
}

impl CachedGet {
    /// Keeps what `service` answers to the request that `request` builds: for 10 minutes, up to
    /// 4 MiB.
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

    /// How long an answer is fresh.
    #[must_use]
    pub fn time_to_live(self, time_to_live: Duration) -> Self {
        Self { time_to_live, ..self }
    }

    /// The longest body that is read, in bytes. A longer one counts as a failure.
    #[must_use]
    pub fn max_bytes(self, max_bytes: usize) -> Self {
        Self { accepted: Accepted { max_bytes, ..self.accepted }, ..self }
    }

    /// Takes nothing but JSON, by its content type and by its text. Any other answer counts as a
    /// failure, so what is served to everybody is never a page that a browser would show or run.
    #[must_use]
    pub fn json_only(self) -> Self {
        Self { accepted: Accepted { json_only: true, ..self.accepted }, ..self }
    }

    /// How the answer looks when the service's own broke off, was too long, or was no JSON where
    /// only JSON is taken.
    #[must_use]
    pub fn reject(self, reject: impl Reject + Send + Sync + 'static) -> Self {
        Self { reject: Arc::new(reject), ..self }
    }

    /// The kept answer, or a new one.
    pub async fn get(&self) -> Response<Bytes> {
        let answer = match self.kept_or_flight() {
            Ok(kept) => kept,
            Err(flight) => flight.await,
        };
        answer.unwrap_or_else(|fault| faulty(&*self.reject, fault, rejection(fault, None)))
    }

    fn kept_or_flight(&self) -> Result<Fetched, Shared<Flight>> {
        let mut state = lock(&self.state);
        match &state.kept {
            Some(kept) if Instant::now() < kept.fresh_until => return Ok(kept.answer.clone()),
            _ => {}
        }
        let running = state.flight.as_ref().and_then(WeakShared::upgrade);
        Err(running.unwrap_or_else(|| {
            let flight = self.depart();
            state.flight = flight.downgrade();
            flight
        }))
    }

    fn depart(&self) -> Shared<Flight> {
        let fetched = (self.fetch)(self.accepted);
        let state = Arc::clone(&self.state);
        let time_to_live = self.time_to_live;
        let flight = async move {
            let fetched = fetched.await;
            lock(&state).landed(fetched, time_to_live)
        };
        flight.boxed().shared()
    }
}

impl State {
    fn landed(&mut self, fetched: Fetched, time_to_live: Duration) -> Fetched {
        self.flight = None;
        let is_good = |answer: &Fetched| {
            answer.as_ref().is_ok_and(|answer| answer.status() == StatusCode::OK)
        };
        let (answer, time) = match self.kept.take() {
            _ if is_good(&fetched) => (fetched, time_to_live),
            Some(kept) if is_good(&kept.answer) => (kept.answer, RETRY.min(time_to_live)),
            _ => (fetched, RETRY.min(time_to_live)),
        };
        self.kept = Some(Kept { answer: answer.clone(), fresh_until: Instant::now() + time });
        answer
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn fetch<S, B, RB>(mut service: S, request: Request<B>, accepted: Accepted) -> Fetched
where
    S: Service<Request<B>, Response = Response<RB>, Error = Infallible>,
    RB: Body,
    RB::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
    let Ok(response) = service.call(request).await;
    let (mut head, body) = response.into_parts();
    let body = Limited::new(body, accepted.max_bytes).collect().await.map_err(|error| {
        tracing::warn!(error = %Chain(&*error), "an answer could not be kept");
        UpstreamFault::Protocol
    })?;
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::DATE);
    let body = body.to_bytes();
    if accepted.json_only && !is_json(&head.headers, &body) {
        tracing::warn!(status = head.status.as_u16(), "an answer could not be kept: it is no JSON");
        return Err(UpstreamFault::Protocol);
    }
    Ok(Response::from_parts(head, body))
}

/// Whether the headers say JSON and the body is.
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
