use std::{
    borrow::Cow,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Extensions, Method, Request, Response, request};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    LimitRejection, Subject,
    limit::{LimitConfig, LimitedSubject},
};
use crate::{
    body,
    clock::{Clock, SystemClock},
    error::{Reject, Rejected, UpstreamFault},
    key::{KeyId, KeyLimit, Limit},
    limit::ExactGcra,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Layer that applies [`RateLimit`]: each subject has a number of requests a minute, or in another period.
///
/// # Rules
///
/// 1. A subject with a limit of N may send N requests at once, and then one in each Nth of the period (the generic
///    cell rate algorithm): in the long run N in a period, and never more than 2 N in any one.
/// 2. Subjects are counted each on its own, exactly, also among concurrent requests.
/// 3. A request beyond the limit is rejected at once with 429 `rate_limit_exceeded` and the policy `minute`
///    ([`name`](Self::name)). `Retry-After` is the time after which the subject's next request is admitted, in whole
///    seconds, at least 1. The rejected request does not count.
/// 4. An admitted request counts, unless a layer inside has rejected it: then it is given back with its response, as
///    far as its part of the period has not passed by.
/// 5. The subject is the key in the request's [`RequestContext`](crate::request::RequestContext), and all keys have
///    the same limit or each its own ([`per_key`](Self::per_key)); or both are the result of [`subject`](Self::subject).
/// 6. A subject without a limit passes without being counted. A request without a subject is rejected with 500 and
///    logged.
/// 7. All services of a layer and of its clones count together, in the memory of the process, which is that of the
///    subjects with requests in the last two periods.
/// 8. Time is measured by a clock that does not jump ([`Clock::monotonic`]).
///
/// # Order
///
/// Inside of the layer that identifies the subject, and outside of a [`DailyQuotaLayer`](super::DailyQuotaLayer):
/// then a rejected request has not reserved a unit.
///
/// # Example
///
/// ```
/// use std::{convert::Infallible, time::Duration};
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_quota::{
///     key::{KeyId, Limit},
///     quota::RateLimitLayer,
///     store::QuotaSubject,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Two a minute for each tenant, and one for those who do not say who they are.
/// let limit = RateLimitLayer::per_minute(Limit::Units(2)).subject(|request| {
///     let tenant = request.headers.get("x-tenant").and_then(|tenant| tenant.to_str().ok());
///     match tenant {
///         Some(tenant) => QuotaSubject::new(KeyId::from(tenant), Limit::Units(2)),
///         None => QuotaSubject::new(KeyId::from("-"), Limit::Units(1)),
///     }
/// });
/// let service = ServiceBuilder::new()
///     .layer(limit)
///     .service(service_fn(|_: Request<Full<Bytes>>| async {
///         Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
///     }));
///
/// let request = || Request::get("/").header("x-tenant", "acme").body(Full::default());
/// for status in [200, 200, 429] {
///     let response = service.clone().oneshot(request()?).await?;
///     assert_eq!(response.status(), status);
///     if status == 429 {
///         assert_eq!(response.headers()["retry-after"], "30");
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RateLimitLayer {
    config: LimitConfig,
    period: Duration,
    clock: Arc<dyn Clock>,
    rates: Arc<ExactGcra>,
}

impl RateLimitLayer {
    /// Creates a layer that limits the requests of each key per minute.
    pub fn per_minute(limit: Limit) -> Self {
        Self::new(limit, MINUTE).name("minute")
    }

    /// Creates a layer that limits each key by its [`KeyLimit::Minute`].
    pub fn per_key() -> Self {
        let config = LimitConfig::of_record(KeyLimit::Minute, "minute");
        Self { config, ..Self::per_minute(Limit::Unlimited) }
    }

    /// Creates a layer that limits the requests of each key in each period. Its [`name`](Self::name) is `rate`.
    pub fn new(limit: Limit, period: Duration) -> Self {
        Self {
            config: LimitConfig::new(limit, "rate"),
            period,
            clock: Arc::new(SystemClock),
            rates: Arc::new(ExactGcra::new(period)),
        }
    }

    /// Sets whose requests are counted together, and how many of them are in a period, in place of the keys and of
    /// their limit.
    #[must_use]
    pub fn subject<F, T>(self, subject: F) -> Self
    where
        F: Fn(&request::Parts) -> T + Send + Sync + 'static,
        T: Into<Subject>,
    {
        Self { config: self.config.subject(subject), ..self }
    }

    /// Sets the name of the limit, the policy of its rejections. Of several layers, each has another one.
    #[must_use]
    pub fn name(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self { config: self.config.name(name.into()), ..self }
    }

    /// Renders rejections with `reject`, which is [`ProblemJson`](crate::error::ProblemJson) by default.
    #[must_use]
    pub fn reject(self, reject: impl Reject) -> Self {
        Self { config: self.config.reject(reject), ..self }
    }

    /// Takes the time from the [`monotonic`](Clock::monotonic) of `clock`, which is [`SystemClock`] by default.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Counts a request of this subject, if it is to be counted.
    fn admit(
        &self,
        subject: Option<LimitedSubject>,
    ) -> Result<Option<CountedRequest>, LimitRejection> {
        let Some((id, limit)) = subject else { return Ok(None) };
        let admitted = self.rates.admit(id.clone(), limit, self.clock.monotonic());
        let next = admitted.map_err(|retry_after| LimitRejection::TooFast {
            limit,
            period: self.period,
            retry_after,
        })?;
        let (rates, clock) = (self.rates.clone(), self.clock.clone());
        Ok(Some(CountedRequest { rates, clock, id, limit, next }))
    }
}

/// A request that was counted.
struct CountedRequest {
    rates: Arc<ExactGcra>,
    clock: Arc<dyn Clock>,
    id: KeyId,
    limit: u64,
    /// The theoretical arrival time of the next request when this one was admitted.
    next: u64,
}

impl CountedRequest {
    /// Gives the request back if a layer inside has rejected it, not the upstream.
    fn settle(self, extensions: &Extensions) {
        let is_rejected = extensions.get::<Rejected>().is_some();
        if is_rejected && extensions.get::<UpstreamFault>().is_none() {
            self.rates.give_back(&self.id, self.limit, self.next, self.clock.monotonic());
        }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit { inner, layer: Arc::new(self.clone()) }
    }
}

impl fmt::Debug for RateLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer").field("period", &self.period).finish_non_exhaustive()
    }
}

/// Middleware that passes each subject's requests to its inner service while they are within a rate.
///
/// See [`RateLimitLayer`] for its rules.
#[derive(Clone)]
pub struct RateLimit<S> {
    inner: S,
    layer: Arc<RateLimitLayer>,
}

impl<S> RateLimit<S> {
    /// Creates the middleware around `inner`, which limits the requests of each key in each period.
    pub fn new(inner: S, limit: Limit, period: Duration) -> Self {
        RateLimitLayer::new(limit, period).layer(inner)
    }

    inner_accessors!(S);
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RateLimit<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<RateLimitBody<ResBody>>;
    type Error = S::Error;
    type Future = RateLimitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (request, subject) = self.layer.config.identify(request);
        let state = match subject.and_then(|subject| self.layer.admit(subject)) {
            Ok(counted) => State::Forwarding { future: self.inner.call(request), counted },
            Err(rejection) => State::Rejected {
                method: request.method().clone(),
                response: Some(self.layer.config.render(rejection, &request)),
            },
        };
        RateLimitFuture { state }
    }
}

impl<S: fmt::Debug> fmt::Debug for RateLimit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// Response future of [`RateLimit`].
    pub struct RateLimitFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Rejected { method: Method, response: Option<Response<Bytes>> },
        Forwarding { #[pin] future: F, counted: Option<CountedRequest> },
    }
}

impl<F, B, E> Future for RateLimitFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<RateLimitBody<B>>, E>;

    /// # Panics
    ///
    /// When polled again after completion.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Rejected { method, response } => {
                let response = response.take().expect("`RateLimitFuture` polled after completion");
                let response = body::ResponseBody::respond(method, response);
                Poll::Ready(Ok(response.map(|inner| RateLimitBody { inner })))
            }
            StateProj::Forwarding { future, counted } => {
                let response = ready!(future.poll(cx))?;
                if let Some(counted) = counted.take() {
                    counted.settle(response.extensions());
                }
                let inner = |body| RateLimitBody { inner: body::ResponseBody::inner(body) };
                Poll::Ready(Ok(response.map(inner)))
            }
        }
    }
}

impl<F> fmt::Debug for RateLimitFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RateLimitFuture")
    }
}

opaque_body! {
    /// Response body of [`RateLimit`]: the inner service's, or a rejection's.
    pub struct RateLimitBody<B>(body::ResponseBody<B>) where B::Data: From<Bytes>;
}

/// Returns an empty body.
impl<B> Default for RateLimitBody<B> {
    fn default() -> Self {
        Self { inner: body::ResponseBody::default() }
    }
}
