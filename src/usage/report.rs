//! The usage report of a key's holder.

use std::{
    cmp::Reverse,
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header, request};
use http_body::Body;
use pin_project_lite::pin_project;
use serde::Serialize;
use tower_service::Service;

use crate::{
    body::ResponseBody,
    clock::{Calendar, Clock, Day, SystemClock, rfc3339},
    error::{ProblemJson, Reject, Rejection, StoreError, catalog, json},
    key::{KeyId, KeyLimit, KeyRecord, Limit},
    request::RequestContext,
    store::{
        Demand, Quota, QuotaStatus, QuotaStore, Tokens,
        rate_headers::{IetfRateHeaders, RateHeaders},
        report::{
            RequestQuery, RequestRecord, TokenSums, UsageFigures, UsageQuery, UsageReader, UsageRow,
        },
    },
};

/// Number of past days in `history`.
const HISTORY_DAYS: u32 = 30;
/// Maximum number of models. An upstream may echo any name that a request gives.
const MAX_REPORTED_MODELS: usize = 100;
/// Maximum number of failed requests in a report.
const MAX_FAILED: usize = 10;

/// Responds with the usage of the key that a request carries, for requests that `TrialKeyAuthLayer` has
/// admitted.
///
/// The key is that of the request's [`RequestContext`]; a request without one is rejected with
/// 401. Nothing is charged. `used` and `remaining` always add up to `daily_limit`: where the limit
/// was lowered below what is used, `used` is the limit. `history` holds the last 30 days before
/// `day`, newest first, without the days on which nothing was used; `models` the 100 busiest models of
/// the 30 days that end with `day`; `limits` each limit of the key, with what is used of it if the store counts that.
///
/// `calendar` must be the store's own: it names the time zone of `day`.
pub fn usage_service<S>(store: S, calendar: Calendar) -> UsageService<S> {
    UsageService {
        shared: Arc::new(Shared {
            store,
            calendar,
            clock: Arc::new(SystemClock),
            headers: Arc::new(IetfRateHeaders),
            reject: Arc::new(ProblemJson),
        }),
    }
}

/// Service that responds with the usage of a key, see [`usage_service`].
#[derive(Clone)]
pub struct UsageService<S> {
    shared: Arc<Shared<S>>,
}

#[derive(Clone)]
struct Shared<S> {
    store: S,
    calendar: Calendar,
    clock: Arc<dyn Clock>,
    headers: Arc<dyn RateHeaders>,
    reject: Arc<dyn Reject>,
}

pin_project! {
    /// Response body of [`UsageService`].
    #[derive(Debug)]
    pub struct UsageBody {
        #[pin]
        inner: ResponseBody<String>,
    }
}

impl Body for UsageBody {
    type Data = Bytes;
    type Error = Infallible;

    delegate_body!();
}

/// Response future of [`UsageService`].
pub struct UsageFuture(Pin<Box<dyn Future<Output = Response<UsageBody>> + Send>>);

impl<S: Clone> UsageService<S> {
    /// Renders rejections with `reject`, which is [`ProblemJson`] by default.
    #[must_use]
    pub fn reject(mut self, reject: impl Reject) -> Self {
        Arc::make_mut(&mut self.shared).reject = Arc::new(reject);
        self
    }

    /// Writes the rate limit headers with `headers`, which are [`IetfRateHeaders`] by default.
    #[must_use]
    pub fn headers(mut self, headers: impl RateHeaders) -> Self {
        Arc::make_mut(&mut self.shared).headers = Arc::new(headers);
        self
    }

    /// Takes the time from `clock`, which is [`SystemClock`] by default.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        Arc::make_mut(&mut self.shared).clock = Arc::new(clock);
        self
    }
}

impl<S: QuotaStore + UsageReader> Shared<S> {
    async fn usage(
        &self,
        record: &KeyRecord,
        at: SystemTime,
    ) -> Result<Response<Bytes>, StoreError> {
        let demand = Demand::new(record.id.clone(), record.daily_limit, at);
        let status = self.store.status(&demand).await?;
        let mut statuses = vec![status];
        let monthly = record.limits.get(KeyLimit::Monthly);
        if monthly.units().is_some() {
            let demand = Demand::new(record.id.clone(), monthly, at).quota(Quota::MONTHLY);
            statuses.push(self.store.status(&demand).await?);
        }
        let from = status.day.minus(HISTORY_DAYS);
        let mut query = UsageQuery::days(from, status.day).key(record.id.clone());
        query.group_by.model = true;
        let report = self.store.report(query).await?;
        let failed = RequestQuery::latest(MAX_FAILED).key(record.id.clone()).failed_only();
        let failed = self.store.requests(failed).await?;
        let time_zone = self.calendar.time_zone();
        let limits = limits(record, &statuses);
        let usage = Usage::of(record, &status, limits, time_zone, report.rows, &failed);
        let mut response = json_response(json(&usage));
        self.headers.insert(&statuses, at, response.headers_mut());
        Ok(response)
    }

    async fn respond(
        &self,
        request: &request::Parts,
        record: Option<Arc<KeyRecord>>,
        at: SystemTime,
    ) -> Response<UsageBody> {
        let response = match (request.method.as_str(), record) {
            ("GET" | "HEAD", Some(record)) => self.usage(&record, at).await.map_err(|error| {
                tracing::warn!(%error, source = ?error, "usage report failed: responding with an error");
                Rejection::from(&error)
            }),
            ("GET" | "HEAD", None) => Err(no_key()),
            _ => Err(Rejection::method_not_allowed(HeaderValue::from_static("GET, HEAD"))),
        };
        let response =
            response.unwrap_or_else(|rejection| rejection.render(&*self.reject, request));
        ResponseBody::respond(&request.method, response).map(|inner| UsageBody { inner })
    }
}

fn json_response(body: Bytes) -> Response<Bytes> {
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

impl<S, B> Service<Request<B>> for UsageService<S>
where
    S: QuotaStore + UsageReader,
{
    type Response = Response<UsageBody>;
    type Error = Infallible;
    type Future = UsageFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> UsageFuture {
        let shared = self.shared.clone();
        let context = RequestContext::of(request.extensions_mut());
        let (key, at) = (context.key(), context.received_at_by(&*shared.clock));
        let (head, _) = request.into_parts();
        UsageFuture(Box::pin(async move { shared.respond(&head, key, at).await }))
    }
}

impl Future for UsageFuture {
    type Output = Result<Response<UsageBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl<S> fmt::Debug for UsageService<S> {
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

/// The report.
#[derive(Serialize)]
struct Usage<'a> {
    object: &'static str,
    id: &'a KeyId,
    key: &'a str,
    label: &'a str,
    day: Day,
    timezone: &'a str,
    daily_limit: u64,
    used: u64,
    remaining: Option<u64>,
    unlimited: bool,
    resets_at: String,
    limits: Vec<LimitStatus>,
    requests: Requests,
    #[serde(with = "TokenSums")]
    tokens: Tokens,
    expires_at: Option<String>,
    history: Vec<PastDay>,
    models: Vec<Model>,
    /// Absent where the store keeps no single requests, or none that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FailedRequest<'a>>,
}

/// One limit of the key.
#[derive(Serialize)]
struct LimitStatus {
    policy: &'static str,
    unit: &'static str,
    limit: u64,
    /// `None` if it is counted in the memory of the gateway.
    used: Option<u64>,
    remaining: Option<u64>,
    resets_at: Option<String>,
}

impl LimitStatus {
    fn counted(status: &QuotaStatus) -> Option<Self> {
        let limit = status.limit.units()?;
        Some(Self {
            policy: status.quota.name(),
            unit: "requests",
            limit,
            used: Some(status.used.min(limit)),
            remaining: status.remaining(),
            resets_at: Some(rfc3339(status.resets_at)),
        })
    }

    fn of_process(policy: &'static str, limit: Limit) -> Option<Self> {
        let limit = limit.units()?;
        let unit = "requests";
        Some(Self { policy, unit, limit, used: None, remaining: None, resets_at: None })
    }
}

#[derive(Serialize)]
struct Requests {
    succeeded: u64,
    failed: u64,
    refunded: u64,
    /// Requests that succeeded and whose response reported no tokens.
    tokens_unknown: u64,
}

#[derive(Serialize)]
struct PastDay {
    day: Day,
    requests: u64,
    succeeded: u64,
    failed: u64,
    tokens: u64,
    tokens_unknown: u64,
}

#[derive(Serialize)]
struct Model {
    /// `None` for requests whose response names no model.
    model: Option<String>,
    requests: u64,
    tokens: u64,
    tokens_unknown: u64,
}

/// What the report shows of a request that did not succeed.
#[derive(Serialize)]
struct FailedRequest<'a> {
    at: String,
    status: Option<u16>,
    code: &'a str,
    model: Option<&'a str>,
    refunded: bool,
}

impl<'a> From<&'a RequestRecord> for FailedRequest<'a> {
    fn from(RequestRecord { event, .. }: &'a RequestRecord) -> Self {
        Self {
            at: rfc3339(event.at),
            status: event.status,
            code: event.code.as_deref().unwrap_or(event.outcome.as_str()),
            model: event.model.as_deref().or(event.requested_model.as_deref()),
            refunded: event.refunded,
        }
    }
}

impl<'a> Usage<'a> {
    /// `rows` are the key's, a day and model each, of today and the [`HISTORY_DAYS`] days before;
    /// `failed` its latest requests that did not end well.
    fn of(
        record: &'a KeyRecord,
        status: &QuotaStatus,
        limits: Vec<LimitStatus>,
        timezone: &'a str,
        rows: Vec<UsageRow>,
        failed: &'a [RequestRecord],
    ) -> Self {
        let limit = status.limit.units();
        let mut days = HashMap::<Day, UsageFigures>::new();
        let mut models = HashMap::<Option<String>, UsageFigures>::new();
        for row in rows {
            let Some(day) = row.day else { continue };
            *days.entry(day).or_default() += row.figures;
            // The models cover 30 days, too, of which today is one.
            if day > status.day.minus(HISTORY_DAYS) {
                let model = row.model.filter(|model| !model.is_empty());
                *models.entry(model).or_default() += row.figures;
            }
        }
        let today = days.remove(&status.day).unwrap_or_default();
        Self {
            object: "usage",
            id: &record.id,
            key: &record.masked,
            label: &record.label,
            day: status.day,
            timezone,
            daily_limit: status.limit.number(),
            used: status.used.min(limit.unwrap_or(u64::MAX)),
            remaining: status.remaining(),
            unlimited: limit.is_none(),
            resets_at: rfc3339(status.resets_at),
            limits,
            requests: Requests {
                succeeded: today.succeeded,
                failed: today.failed,
                refunded: today.refunded,
                tokens_unknown: today.tokens_unknown,
            },
            tokens: today.tokens,
            expires_at: record.expires_at.map(rfc3339),
            history: history(days),
            models: busiest(models),
            errors: failed.iter().map(FailedRequest::from).collect(),
        }
    }
}

/// Returns the limits of a key: those with a status, and those that each process counts in memory.
fn limits(record: &KeyRecord, statuses: &[QuotaStatus]) -> Vec<LimitStatus> {
    let counted = statuses.iter().filter_map(LimitStatus::counted);
    let of_process = [("minute", KeyLimit::Minute), ("in_flight", KeyLimit::InFlight)];
    let of_process = of_process.map(|(policy, limit)| (policy, record.limits.get(limit)));
    let of_process = of_process.into_iter();
    counted
        .chain(of_process.filter_map(|(policy, limit)| LimitStatus::of_process(policy, limit)))
        .collect()
}

/// Returns the days with requests, newest first.
fn history(days: HashMap<Day, UsageFigures>) -> Vec<PastDay> {
    let mut history: Vec<PastDay> = days
        .into_iter()
        .filter(|(_, figures)| figures.requests > 0)
        .map(|(day, figures)| PastDay {
            day,
            requests: figures.requests,
            succeeded: figures.succeeded,
            failed: figures.failed,
            tokens: figures.tokens.total,
            tokens_unknown: figures.tokens_unknown,
        })
        .collect();
    history.sort_unstable_by_key(|past| Reverse(past.day));
    history
}

fn busiest(models: HashMap<Option<String>, UsageFigures>) -> Vec<Model> {
    let mut models: Vec<Model> = models
        .into_iter()
        .filter(|(_, figures)| figures.requests > 0)
        .map(|(model, figures)| Model {
            model,
            requests: figures.requests,
            tokens: figures.tokens.total,
            tokens_unknown: figures.tokens_unknown,
        })
        .collect();
    models.sort_unstable_by(|a, b| {
        let order = |model: &Model| Reverse((model.requests, model.tokens));
        order(a).cmp(&order(b)).then_with(|| a.model.cmp(&b.model))
    });
    models.truncate(MAX_REPORTED_MODELS);
    models
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_models_are_listed() {
        let figures = |requests| UsageFigures { requests, ..UsageFigures::default() };
        let named = (1..=200).map(|count| (Some(format!("m{count}")), figures(count)));
        let models = busiest(
            named.chain([(None, figures(500)), (Some("rejected".into()), figures(0))]).collect(),
        );
        let requests: Vec<u64> = models.iter().map(|model| model.requests).collect();
        assert_eq!(requests, [500].into_iter().chain((102..=200).rev()).collect::<Vec<u64>>());
        assert_eq!((&models[0].model, models[1].model.as_deref()), (&None, Some("m200")));
    }
}
