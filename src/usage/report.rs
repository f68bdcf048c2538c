use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use tower_service::Service;

use super::figures::{HISTORY, Usage};
use crate::{
    body::ResponseBody,
    clock::{Calendar, Clock, SystemClock},
    error::{ProblemJson, Reject, Rejection, StoreError, catalog, json},
    key::KeyRecord,
    request::RequestContext,
    store::{QuotaStore, QuotaSubject, RequestQuery, UsageQuery, UsageReader, rate_headers},
};

/// How many of the latest requests that did not end well are told of.
const FAILED: usize = 10;

/// The body of the usage service's answers.
pub type UsageBody = ResponseBody<String>;

/// Answers a holder's own figures, for requests that `TrialKeyAuthLayer` let through.
///
/// The key is that of the request's [`RequestContext`]; a request without one is rejected with
/// 401. Nothing is charged. `used` and `remaining` always add up to `daily_limit`: where the limit
/// was lowered below what is used, `used` is the limit. `history` tells of the last 30 days before
/// `day`, newest first, without the days on which nothing was used; `models` of the 30 days that end
/// with `day`, the 100 busiest models first.
///
/// `calendar` must be the store's own: it names the time zone of `day`.
pub fn usage_service<S>(store: S, calendar: Calendar) -> UsageService<S> {
    UsageService::from_shared(Shared {
        store,
        calendar,
        clock: Arc::new(SystemClock),
        reject: ProblemJson,
    })
}

/// The service that [`usage_service`] makes.
pub struct UsageService<S, R = ProblemJson> {
    shared: Arc<Shared<S, R>>,
}

#[derive(Clone)]
struct Shared<S, R> {
    store: S,
    calendar: Calendar,
    clock: Arc<dyn Clock>,
    reject: R,
}

/// Response future of [`UsageService`].
pub struct UsageFuture(Pin<Box<dyn Future<Output = Response<UsageBody>> + Send>>);

impl<S, R> UsageService<S, R> {
    fn from_shared(shared: Shared<S, R>) -> Self {
        Self { shared: Arc::new(shared) }
    }
}

impl<S: Clone, R: Clone> UsageService<S, R> {
    /// Renders rejections in another form.
    #[must_use]
    pub fn reject<R2>(self, reject: R2) -> UsageService<S, R2> {
        let shared = Arc::unwrap_or_clone(self.shared);
        UsageService::from_shared(Shared {
            store: shared.store,
            calendar: shared.calendar,
            clock: shared.clock,
            reject,
        })
    }

    /// Takes the time from another clock.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self::from_shared(Shared { clock: Arc::new(clock), ..Arc::unwrap_or_clone(self.shared) })
    }
}

impl<S: QuotaStore + UsageReader, R> Shared<S, R> {
    async fn usage(
        &self,
        record: &KeyRecord,
        at: SystemTime,
    ) -> Result<Response<Bytes>, StoreError> {
        let subject = QuotaSubject::from(record);
        let status = self.store.status(&subject, at).await?;
        let from = status.day.minus(HISTORY);
        let mut query = UsageQuery::days(from, status.day).key(record.id.clone());
        query.group_by.model = true;
        let report = self.store.report(query).await?;
        let failed = RequestQuery::latest(FAILED).key(record.id.clone()).failed_only();
        let failed = self.store.requests(failed).await?;
        let time_zone = self.calendar.time_zone();
        let usage = Usage::of(record, &status, time_zone, report.rows, &failed);
        let mut answer = json_answer(json(&usage));
        rate_headers::insert(answer.headers_mut(), &status, at);
        Ok(answer)
    }
}

impl<S: QuotaStore + UsageReader, R: Reject> Shared<S, R> {
    async fn answer(
        &self,
        method: Method,
        record: Option<Arc<KeyRecord>>,
        at: SystemTime,
    ) -> Response<UsageBody> {
        let answer = match (method.as_str(), record) {
            ("GET" | "HEAD", Some(record)) => self.usage(&record, at).await.map_err(|error| {
                tracing::warn!(%error, source = ?error, "a holder's usage could not be read");
                Rejection::from(&error)
            }),
            ("GET" | "HEAD", None) => Err(no_key()),
            _ => Err(Rejection::method_not_allowed(HeaderValue::from_static("GET, HEAD"))),
        };
        let answer = answer.unwrap_or_else(|rejection| rejection.render(&self.reject));
        ResponseBody::respond(&method, answer)
    }
}

fn json_answer(body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "accept"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

fn no_key() -> Rejection {
    let challenge = HeaderValue::from_static("Bearer");
    catalog::MISSING_API_KEY.rejection().header(header::WWW_AUTHENTICATE, challenge)
}

impl<S, R, B> Service<Request<B>> for UsageService<S, R>
where
    S: QuotaStore + UsageReader,
    R: Reject + Send + Sync + 'static,
{
    type Response = Response<UsageBody>;
    type Error = Infallible;
    type Future = UsageFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> UsageFuture {
        let shared = self.shared.clone();
        let method = request.method().clone();
        let context = RequestContext::of(request.extensions_mut());
        let (key, at) = (context.key(), context.received_at_by(&*shared.clock));
        UsageFuture(Box::pin(async move { shared.answer(method, key, at).await }))
    }
}

impl Future for UsageFuture {
    type Output = Result<Response<UsageBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl<S, R> Clone for UsageService<S, R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S, R> fmt::Debug for UsageService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageService")
            .field("calendar", &self.shared.calendar)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for UsageFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsageFuture")
    }
}
