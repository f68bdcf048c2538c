use std::{
    borrow::Cow,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, Request, Response, request};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    LimitRejection, Subject,
    limit::{LimitConfig, LimitedSubject},
};
use crate::{
    body::{self, BodyEnd, BodyObserver, ObservedBody, expected_length},
    error::Reject,
    key::{KeyLimit, Limit},
    limit::{InFlight, InFlightGuard},
};

/// Layer that applies [`InFlightLimit`]: each subject has a maximum number of requests in flight.
///
/// # Rules
///
/// 1. A request is in flight from its call until the last frame of its response body, or until its future or its
///    body is dropped, or the inner service has failed. A client that leaves gives its place back.
/// 2. Of N concurrent requests with R places left exactly min(N, R) reach the inner service. The others are
///    rejected at once with 429 `rate_limit_exceeded`, `Retry-After: 1` and the policy `in_flight`
///    ([`name`](Self::name)). No request waits for a place.
/// 3. The subject is the key in the request's [`RequestContext`](crate::request::RequestContext), and all keys have
///    the same maximum or each its own ([`per_key`](Self::per_key)); or both are the result of [`subject`](Self::subject).
/// 4. A subject without a limit passes without being counted. A request without a subject is rejected with 500 and
///    logged.
/// 5. All services of a layer and of its clones count together, in the memory of the process. Only subjects with
///    requests in flight take memory.
///
/// # Order
///
/// Inside of the layer that identifies the subject, and outside of a [`DailyQuotaLayer`](super::DailyQuotaLayer):
/// then a rejected request has not reserved a unit. A `DrainLayer` outside reads a response to its end when its client
/// has left, which keeps the place until then.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_quota::{
///     auth::TrialKeyAuthLayer,
///     key::{KeyId, KeyRecord, Limit, SecretKey},
///     quota::{DailyQuotaLayer, InFlightLimitLayer},
///     store::memory::MemoryStore,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let key = SecretKey::parse("trial-alice-key-123")?;
/// store.insert(&key, KeyRecord::new(KeyId::from("alice"), Limit::Units(100)))?;
/// let service = ServiceBuilder::new()
///     .layer(TrialKeyAuthLayer::new(store.clone()))
///     .layer(InFlightLimitLayer::new(Limit::Units(1)))
///     .layer(DailyQuotaLayer::new(store))
///     .service(service_fn(|_: Request<Full<Bytes>>| async {
///         Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
///     }));
///
/// let request = || Request::get("/").header("x-api-key", key.expose()).body(Full::default());
/// let first = service.clone().oneshot(request()?).await?;
/// let second = service.clone().oneshot(request()?).await?;
/// assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 429));
/// // The first response has ended.
/// drop(first);
/// assert_eq!(service.oneshot(request()?).await?.status(), 200);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct InFlightLimitLayer {
    config: LimitConfig,
    in_flight: Arc<InFlight>,
}

impl InFlightLimitLayer {
    /// Creates a layer that limits how many requests of each key are in flight.
    pub fn new(max: Limit) -> Self {
        Self { config: LimitConfig::new(max, "in_flight"), in_flight: Arc::default() }
    }

    /// Creates a layer that limits each key by its [`KeyLimit::InFlight`].
    pub fn per_key() -> Self {
        let config = LimitConfig::of_record(KeyLimit::InFlight, "in_flight");
        Self { config, in_flight: Arc::default() }
    }

    /// Sets whose requests are counted together, and how many of them may be in flight, in place of the keys and
    /// of their maximum.
    ///
    /// ```
    /// use tower_quota::{
    ///     key::{KeyId, Limit},
    ///     quota::{InFlightLimitLayer, Subject},
    ///     request::RequestContext,
    ///     store::QuotaSubject,
    /// };
    ///
    /// // Four for each address, and any number for programs on this machine.
    /// let limit = InFlightLimitLayer::new(Limit::Units(4)).subject(|request| {
    ///     let context = request.extensions.get::<RequestContext>();
    ///     let Some(addr) = context.and_then(RequestContext::client_addr) else { return Subject::Unknown };
    ///     let max = if addr.is_loopback() { Limit::Unlimited } else { Limit::Units(4) };
    ///     QuotaSubject::new(KeyId::new(addr.to_string()), max).into()
    /// });
    /// # let _ = limit;
    /// ```
    #[must_use]
    pub fn subject<F, T>(self, subject: F) -> Self
    where
        F: Fn(&request::Parts) -> T + Send + Sync + 'static,
        T: Into<Subject>,
    {
        Self { config: self.config.subject(subject), ..self }
    }

    /// Sets the name of the limit, the policy of its rejections. `in_flight` by default.
    #[must_use]
    pub fn name(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self { config: self.config.name(name.into()), ..self }
    }

    /// Renders rejections with `reject`, which is [`ProblemJson`](crate::error::ProblemJson) by default.
    #[must_use]
    pub fn reject(self, reject: impl Reject) -> Self {
        Self { config: self.config.reject(reject), ..self }
    }

    /// Counts a request of this subject, if it is to be counted.
    fn enter(
        &self,
        subject: Option<LimitedSubject>,
    ) -> Result<Option<InFlightGuard>, LimitRejection> {
        let Some((id, max)) = subject else { return Ok(None) };
        let guard = self.in_flight.enter(id, max);
        guard.map(Some).ok_or(LimitRejection::TooManyInFlight { max })
    }
}

impl<S> Layer<S> for InFlightLimitLayer {
    type Service = InFlightLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        InFlightLimit { inner, layer: Arc::new(self.clone()) }
    }
}

impl fmt::Debug for InFlightLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InFlightLimitLayer")
    }
}

/// Middleware that passes each subject's requests to its inner service while fewer than a maximum are in flight.
///
/// See [`InFlightLimitLayer`] for its rules.
#[derive(Clone)]
pub struct InFlightLimit<S> {
    inner: S,
    layer: Arc<InFlightLimitLayer>,
}

impl<S> InFlightLimit<S> {
    /// Creates the middleware around `inner`, which limits how many requests of each key are in flight.
    pub fn new(inner: S, max: Limit) -> Self {
        InFlightLimitLayer::new(max).layer(inner)
    }

    inner_accessors!(S);
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for InFlightLimit<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Response = Response<InFlightLimitBody<ResBody>>;
    type Error = S::Error;
    type Future = InFlightLimitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (request, subject) = self.layer.config.identify(request);
        let method = request.method().clone();
        let state = match subject.and_then(|subject| self.layer.enter(subject)) {
            Ok(guard) => State::Forwarding { future: self.inner.call(request), guard },
            Err(rejection) => {
                State::Rejected { response: Some(self.layer.config.render(rejection, &request)) }
            }
        };
        InFlightLimitFuture { method, state }
    }
}

impl<S: fmt::Debug> fmt::Debug for InFlightLimit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlightLimit").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// Response future of [`InFlightLimit`].
    pub struct InFlightLimitFuture<F> {
        method: Method,
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Rejected { response: Option<Response<Bytes>> },
        // The guard is dropped after what it counts.
        Forwarding { #[pin] future: F, guard: Option<InFlightGuard> },
    }
}

impl<F, B, E> Future for InFlightLimitFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<InFlightLimitBody<B>>, E>;

    /// # Panics
    ///
    /// When polled again after completion.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.state.project() {
            StateProj::Rejected { response } => {
                let response =
                    response.take().expect("`InFlightLimitFuture` polled after completion");
                body::ResponseBody::respond(this.method, response)
            }
            StateProj::Forwarding { future, guard } => {
                let result = ready!(future.poll(cx));
                let guard = guard.take();
                let (head, body) = result?.into_parts();
                let body = match guard {
                    Some(guard) => {
                        ObservedBody::new(body, guard, expected_length(this.method, &head))
                    }
                    None => ObservedBody::unobserved(body),
                };
                Response::from_parts(head, body::ResponseBody::inner(body))
            }
        };
        Poll::Ready(Ok(response.map(|inner| InFlightLimitBody { inner })))
    }
}

impl<F> fmt::Debug for InFlightLimitFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InFlightLimitFuture")
    }
}

/// A request is in flight until its response body has ended.
impl BodyObserver for InFlightGuard {
    fn end(self, _: BodyEnd) {}
}

opaque_body! {
    /// Response body of [`InFlightLimit`]: the inner service's, whose request is in flight until it ends, or a
    /// rejection's.
    pub struct InFlightLimitBody<B>(body::ResponseBody<ObservedBody<B, InFlightGuard>>) where B::Data: From<Bytes>;
}

/// Returns an empty body.
impl<B> Default for InFlightLimitBody<B> {
    fn default() -> Self {
        Self { inner: body::ResponseBody::default() }
    }
}
