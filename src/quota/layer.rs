use std::{fmt, future::Future, iter, slice, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{Response, request};
use tower_layer::Layer;

use super::{
    ChargePolicy, ChargeUnlessUndone, CommitPoint, DailyQuota, QuotaRejection, QuotaRule, Subject,
    rule::QuotaNeed,
};
use crate::{
    clock::{Clock, SystemClock},
    error::{ProblemJson, Reject, RejectedRequest, Rejection, StoreError, catalog},
    metrics::{Counter, names},
    request::RequestContext,
    store::{
        Quota, QuotaStatus, QuotaStore, StoreFuture,
        rate_headers::{IetfRateHeaders, RateHeaders},
    },
};

/// Layer that applies [`DailyQuota`]: each subject has a number of units per period.
///
/// See the [module](super) for its rules.
#[derive(Clone)]
pub struct DailyQuotaLayer {
    pub(super) store: Arc<dyn QuotaStore>,
    pub(super) quota: Quota,
    pub(super) policy: Arc<dyn ChargePolicy>,
    subject: SubjectSource,
    /// `None` is one unit.
    cost: Option<FromRequest<u64>>,
    /// Quotas on which a request counts, too.
    further: Vec<QuotaRule>,
    headers: Headers,
    pub(super) is_shadow: bool,
    reject: Arc<dyn Reject>,
    commit: CommitPoint,
    pub(super) clock: Arc<dyn Clock>,
}

/// A function of a request's head.
pub(super) type FromRequest<T> = Arc<dyn Fn(&request::Parts) -> T + Send + Sync>;

/// Where the subject of a request comes from.
#[derive(Clone)]
enum SubjectSource {
    /// It is the key of the request's context.
    Key,
    /// The request says it.
    Request(FromRequest<Subject>),
    /// It is looked up.
    Lookup(FromRequest<StoreFuture<Subject>>),
}

/// The subject of a request.
pub(super) enum Identity {
    Known(Subject),
    Pending(StoreFuture<Subject>),
}

/// What a request needs of the layer's quotas.
pub(super) struct RequestNeeds {
    pub(super) subject: Identity,
    pub(super) amount: u64,
    pub(super) further: Vec<QuotaNeed>,
}

/// Which rate limit headers responses have.
#[derive(Clone)]
enum Headers {
    /// [`IetfRateHeaders`], or none of a shadow quota.
    Default,
    Chosen(Arc<dyn RateHeaders>),
    None,
}

impl DailyQuotaLayer {
    /// Creates a layer that counts in `store`.
    pub fn new(store: impl QuotaStore) -> Self {
        Self {
            store: Arc::new(store),
            quota: Quota::DAILY,
            policy: Arc::new(ChargeUnlessUndone),
            subject: SubjectSource::Key,
            cost: None,
            further: Vec::new(),
            headers: Headers::Default,
            is_shadow: false,
            reject: Arc::new(ProblemJson),
            commit: CommitPoint::BeforeResponse,
            clock: Arc::new(SystemClock),
        }
    }

    /// Sets the policy that decides which requests are refunded. [`ChargeUnlessUndone`] by default.
    #[must_use]
    pub fn policy(self, policy: impl ChargePolicy) -> Self {
        Self { policy: Arc::new(policy), ..self }
    }

    /// Sets under which quota units are counted. [`Quota::DAILY`] by default. Several layers of one store
    /// need different quotas; reports show the units of the default one. The text of a rejection names any other
    /// quota; that of the default one speaks of today's requests.
    ///
    /// ```
    /// use tower::ServiceBuilder;
    /// use tower_quota::{
    ///     clock::Period,
    ///     key::{KeyId, Limit},
    ///     quota::DailyQuotaLayer,
    ///     store::{Quota, QuotaSubject, memory::MemoryStore},
    /// };
    ///
    /// # fn main() -> Result<(), tower_quota::store::InvalidQuota> {
    /// let store = MemoryStore::new();
    /// let acme = |limit| QuotaSubject::new(KeyId::from("acme"), Limit::Units(limit));
    /// let requests = DailyQuotaLayer::new(store.clone()).subject(move |_| acme(100));
    /// // Counted beside the requests, by the month: rows to export, as many as the query says.
    /// let rows = DailyQuotaLayer::new(store)
    ///     .quota(Quota::new("rows", Period::Month)?)
    ///     .subject(move |_| acme(5000))
    ///     .cost(|request| request.uri.query().and_then(|rows| rows.parse().ok()).unwrap_or(1));
    /// // A request for which too few rows are left costs no request.
    /// let quotas = ServiceBuilder::new().layer(requests).layer(rows);
    /// # let _ = quotas;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn quota(self, quota: Quota) -> Self {
        Self { quota, ..self }
    }

    /// Sets whose quota a request counts on. The key that the request was admitted with
    /// ([`Subject::of_key`]) by default.
    ///
    /// With an authentication of your own, the subject is what that has put into the request's extensions:
    ///
    /// ```
    /// use tower_quota::{
    ///     key::{KeyId, Limit},
    ///     quota::{DailyQuotaLayer, Subject},
    ///     store::{QuotaSubject, memory::MemoryStore},
    /// };
    ///
    /// /// The verified claims of a JWT, from a middleware outside of the quota.
    /// #[derive(Clone)]
    /// struct Claims {
    ///     tenant: String,
    ///     is_paying: bool,
    /// }
    ///
    /// let quota = DailyQuotaLayer::new(MemoryStore::new()).subject(|request| {
    ///     if request.uri.path() == "/health" {
    ///         return Subject::Exempt;
    ///     }
    ///     let Some(claims) = request.extensions.get::<Claims>() else { return Subject::Unknown };
    ///     let limit = Limit::Units(if claims.is_paying { 10_000 } else { 100 });
    ///     QuotaSubject::new(KeyId::from(&*claims.tenant), limit).into()
    /// });
    /// # let _ = quota;
    /// ```
    #[must_use]
    pub fn subject<F, T>(self, subject: F) -> Self
    where
        F: Fn(&request::Parts) -> T + Send + Sync + 'static,
        T: Into<Subject>,
    {
        let subject = move |request: &request::Parts| subject(request).into();
        Self { subject: SubjectSource::Request(Arc::new(subject)), ..self }
    }

    /// Looks up whose quota a request counts on, such as the tenant of a session in a database. The inner
    /// service is called once the subject is known and its units are reserved. A request whose lookup fails
    /// is rejected with 503. The future takes what it needs out of the request's head.
    ///
    /// ```
    /// use tower_quota::{
    ///     error::StoreError,
    ///     key::{KeyId, Limit},
    ///     quota::DailyQuotaLayer,
    ///     store::{QuotaSubject, memory::MemoryStore},
    /// };
    ///
    /// # #[derive(Clone)]
    /// # struct Tenants;
    /// # impl Tenants {
    /// #     async fn of_host(&self, _: &str) -> Result<Option<(String, u64)>, std::io::Error> { Ok(None) }
    /// # }
    /// # let tenants = Tenants;
    /// let quota = DailyQuotaLayer::new(MemoryStore::new()).subject_async(move |request| {
    ///     let (tenants, host) = (tenants.clone(), request.headers.get("host").cloned());
    ///     async move {
    ///         let Some(host) = host.as_ref().and_then(|host| host.to_str().ok()) else {
    ///             return Ok(None);
    ///         };
    ///         let tenant = tenants.of_host(host).await.map_err(StoreError::unavailable)?;
    ///         let Some((name, limit)) = tenant else { return Ok(None) };
    ///         Ok(Some(QuotaSubject::new(KeyId::new(name), Limit::Units(limit))))
    ///     }
    /// });
    /// # let _ = quota;
    /// ```
    #[must_use]
    pub fn subject_async<F, Fut, T>(self, subject: F) -> Self
    where
        F: Fn(&request::Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, StoreError>> + Send + 'static,
        T: Into<Subject>,
    {
        let subject = move |request: &request::Parts| {
            let subject = subject(request);
            StoreFuture::pending(async move { subject.await.map(Into::into) })
        };
        Self { subject: SubjectSource::Lookup(Arc::new(subject)), ..self }
    }

    /// Sets how many units a request costs. 1 by default; a request of 0 is not counted, and its response
    /// shows the subject's status.
    ///
    /// A client that can choose the number may use up a subject's period with one request. The stores of this crate
    /// count up to 2⁵³ units in a period, then also the quota of a subject without a limit is exhausted.
    #[must_use]
    pub fn cost<F>(self, cost: F) -> Self
    where
        F: Fn(&request::Parts) -> u64 + Send + Sync + 'static,
    {
        Self { cost: Some(Arc::new(cost)), ..self }
    }

    /// Counts requests on a further quota of the same store, in one reservation with the others: a request for which one
    /// of them has too few units left takes none of any ([`QuotaStore::reserve_all`]).
    ///
    /// Its quota is another one than the layer's and those of other rules. The policy, the renderer, the headers and
    /// [`shadow`](Self::shadow) are those of the layer. A rejection speaks of the
    /// exhausted quota that resets last.
    ///
    /// ```
    /// use tower_quota::{
    ///     clock::Period,
    ///     key::{KeyId, Limit},
    ///     quota::{DailyQuotaLayer, QuotaRule},
    ///     store::{Quota, QuotaSubject, memory::MemoryStore},
    /// };
    ///
    /// # fn main() -> Result<(), tower_quota::store::InvalidQuota> {
    /// let everybody = QuotaSubject::new(KeyId::from("everybody"), Limit::Units(10_000));
    /// // The key's requests of the day and of the month, and those of all keys.
    /// let quotas = DailyQuotaLayer::new(MemoryStore::new())
    ///     .and(QuotaRule::of_key(Quota::new("monthly", Period::Month)?, |_| Some(Limit::Units(2000))))
    ///     .and(QuotaRule::new(Quota::new("pool", Period::Day)?, move |_| everybody.clone()));
    /// # let _ = quotas;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn and(mut self, rule: QuotaRule) -> Self {
        self.further.push(rule);
        self
    }

    /// Writes the rate limit headers of responses with `headers`, which are [`IetfRateHeaders`] by default.
    #[must_use]
    pub fn headers(self, headers: impl RateHeaders) -> Self {
        Self { headers: Headers::Chosen(Arc::new(headers)), ..self }
    }

    /// Writes no rate limit headers, and hides the quota from those of other layers.
    #[must_use]
    pub fn without_headers(self) -> Self {
        Self { headers: Headers::None, ..self }
    }

    /// Sets whether the quota is a shadow: it counts, and rejects no request, so that a limit can be tried on
    /// real traffic.
    ///
    /// - A request that would be rejected passes, is logged and counted in the metric
    ///   `tower_quota_shadow_rejections_total` (feature `metrics`), by quota and reason. Its units are counted, too, beyond the limit, so
    ///   that reports show what the subjects would need; refunds are not bounded.
    /// - While the store fails, requests pass uncounted. No response waits until its units are durable.
    /// - Its status is in no rate limit headers, its own or those of other layers, unless
    ///   [`headers`](Self::headers) chooses some.
    #[must_use]
    pub fn shadow(self, is_shadow: bool) -> Self {
        Self { is_shadow, ..self }
    }

    /// Renders rejections with `reject`, which is [`ProblemJson`] by default.
    #[must_use]
    pub fn reject(self, reject: impl Reject) -> Self {
        Self { reject: Arc::new(reject), ..self }
    }

    /// Sets when a reservation must be durable. [`CommitPoint::BeforeResponse`] by default.
    #[must_use]
    pub fn commit(self, commit: CommitPoint) -> Self {
        Self { commit, ..self }
    }

    /// Takes the time from `clock`, which is [`SystemClock`] by default.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Returns the subject of a request, and what it needs, if they do not depend on its head.
    pub(super) fn without_head(&self, context: &RequestContext) -> Option<RequestNeeds> {
        match (&self.subject, &self.cost) {
            (SubjectSource::Key, None) => {
                let subject = Identity::Known(context.key_subject().into());
                let further = self.further.iter().map(|rule| rule.without_head(context));
                Some(RequestNeeds { subject, amount: 1, further: further.collect::<Option<_>>()? })
            }
            _ => None,
        }
    }

    /// Returns the subject of the request with this head, and what it needs.
    pub(super) fn of_head(&self, context: &RequestContext, head: &request::Parts) -> RequestNeeds {
        let amount = self.cost.as_ref().map_or(1, |cost| cost(head));
        let subject = match &self.subject {
            SubjectSource::Key => Identity::Known(Subject::of_key(head)),
            SubjectSource::Request(subject) => Identity::Known(subject(head)),
            SubjectSource::Lookup(subject) => Identity::Pending(subject(head)),
        };
        let further = self.further.iter().map(|rule| rule.of_head(context, head)).collect();
        RequestNeeds { subject, amount, further }
    }

    fn quotas(&self) -> impl Iterator<Item = Quota> {
        iter::once(self.quota).chain(self.further.iter().map(QuotaRule::quota))
    }

    /// Returns when a reservation must be durable.
    pub(super) fn commit_point(&self) -> CommitPoint {
        if self.is_shadow { CommitPoint::BeforeResponse } else { self.commit }
    }

    /// Returns the writer of the rate limit headers, if there are any.
    pub(super) fn rate_headers(&self) -> Option<&dyn RateHeaders> {
        match &self.headers {
            Headers::Chosen(headers) => Some(&**headers),
            Headers::Default if !self.is_shadow => Some(&IetfRateHeaders),
            Headers::Default | Headers::None => None,
        }
    }

    /// Returns the rejection, unless the quota is a shadow: then the request passes.
    pub(super) fn unless_shadow(&self, rejection: QuotaRejection) -> Result<(), QuotaRejection> {
        if !self.is_shadow {
            return Err(rejection);
        }
        note_shadow_rejection(rejection.quota().unwrap_or(self.quota), &rejection);
        Ok(())
    }

    /// Renders a rejection of this request.
    pub(super) fn render<'a>(
        &self,
        rejection: &QuotaRejection,
        request: impl Into<RejectedRequest<'a>>,
    ) -> Response<Bytes> {
        match rejection {
            QuotaRejection::Store(error) => {
                tracing::warn!(source = ?error, "quota reservation failed: rejecting the request");
            }
            QuotaRejection::NoSubject => {
                tracing::error!(
                    quota = self.quota.name(),
                    "request has no quota subject: rejecting it; put the layer that identifies the \
                     client (TrialKeyAuthLayer) outside of the quota: before it in a ServiceBuilder, \
                     after it with Router::layer"
                );
            }
            QuotaRejection::Exhausted { .. } | QuotaRejection::Elsewhere { .. } => {}
        }
        let reason = rejection;
        let mut rejection = Rejection::from(reason);
        if let QuotaRejection::Exhausted { status, at } | QuotaRejection::Elsewhere { status, at } =
            reason
            && let Some(headers) = self.rate_headers()
        {
            headers.insert(slice::from_ref(status), *at, &mut rejection.headers);
        }
        rejection.render(&*self.reject, request)
    }
}

/// Logs and counts that a shadow quota passes a request that it would reject, if the units of the request exceed the
/// limit.
pub(super) fn note_shadow_excess(status: QuotaStatus, at: SystemTime) {
    if status.limit.units().is_some_and(|limit| status.used > limit) {
        note_shadow_rejection(status.quota, &QuotaRejection::Exhausted { status, at });
    }
}

/// Logs and counts that a shadow quota passes a request that it would reject.
pub(super) fn note_shadow_rejection(quota: Quota, rejection: &QuotaRejection) {
    shadow_rejections(quota, Rejection::from(rejection).code).increment(1);
    let quota = quota.name();
    match rejection {
        QuotaRejection::Store(error) => {
            tracing::warn!(quota, source = ?error, "shadow quota failed: passing the request uncounted");
        }
        QuotaRejection::NoSubject => {
            tracing::warn!(quota, "request has no quota subject: passing it uncounted");
        }
        QuotaRejection::Exhausted { .. } | QuotaRejection::Elsewhere { .. } => {
            tracing::info!(quota, reason = %rejection, "request would be rejected: passing it");
        }
    }
}

fn shadow_rejections(quota: Quota, reason: &'static str) -> Counter {
    names::SHADOW_REJECTIONS.counter(&[("quota", quota.name()), ("reason", reason)])
}

impl<S> Layer<S> for DailyQuotaLayer {
    type Service = DailyQuota<S>;

    fn layer(&self, inner: S) -> Self::Service {
        if self.is_shadow {
            // Exported as 0 before the first of them.
            for code in [
                catalog::INSUFFICIENT_QUOTA,
                catalog::RATE_LIMIT_EXCEEDED,
                catalog::STORE_UNAVAILABLE,
                catalog::QUOTA_SUBJECT_MISSING,
            ] {
                for quota in self.quotas() {
                    let _ = shadow_rejections(quota, code.code());
                }
            }
        }
        DailyQuota { inner, layer: Arc::new(self.clone()) }
    }
}

impl fmt::Debug for DailyQuotaLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DailyQuotaLayer").field("commit", &self.commit).finish_non_exhaustive()
    }
}
