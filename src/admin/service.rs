use std::{
    convert::Infallible,
    error::Error,
    fmt,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, header, request::Parts};
use http_body::Body;
use tower_service::Service;

use super::{
    auth::ClientAddr, call::Unread, client_addrs::ClientAddrs, csv::AdminBody,
    future::ResponseFuture, guard::guard, input::read_body, page::Page, refusal::Refusal,
    rejections::RejectionLog, route, shared::Shared, tokens::AdminTokens,
};
use crate::{
    body::ResponseBody,
    clock::Calendar,
    error::{ProblemJson, Reject, Rejection},
    key::DailyLimit,
    store::{Actor, AdminStore},
};

/// The admin API and page over `store`, open to holders of one of these tokens. See the
/// [module](super) for its calls.
pub fn admin_service<S>(store: S, tokens: AdminTokens) -> AdminService<S> {
    AdminService::from_shared(Shared::new(store, tokens))
}

/// The service that [`admin_service`] makes.
pub struct AdminService<S, R = ProblemJson> {
    shared: Arc<Shared<S, R>>,
}

impl<S, R> AdminService<S, R> {
    /// What is changed may be described otherwise.
    fn from_shared(shared: Shared<S, R>) -> Self {
        Self { shared: Arc::new(Shared { api: Arc::default(), ..shared }) }
    }
}

impl<S: Clone, R: Clone> AdminService<S, R> {
    /// Renders rejections in another form.
    #[must_use]
    pub fn reject<R2>(self, reject: R2) -> AdminService<S, R2> {
        AdminService::from_shared(Arc::unwrap_or_clone(self.shared).with_reject(reject))
    }

    /// The limit of keys that are issued without one; 200 if this is not called.
    #[must_use]
    pub fn default_daily_limit(self, default_daily_limit: DailyLimit) -> Self {
        Self::from_shared(Shared { default_daily_limit, ..Arc::unwrap_or_clone(self.shared) })
    }

    /// Where the service is mounted; `/admin` if this is not called. Request paths hold it.
    #[must_use]
    pub fn prefix(self, prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/');
        Self::from_shared(Shared {
            page: Page::new(prefix, &self.shared.base_url),
            prefix: prefix.into(),
            ..Arc::unwrap_or_clone(self.shared)
        })
    }

    /// The base URL that clients are to be given with a key, for example
    /// `https://gateway.example/v1`. The page names `/v1` of its own server if this is not called.
    #[must_use]
    pub fn base_url(self, base_url: &str) -> Self {
        Self::from_shared(Shared {
            page: Page::new(&self.shared.prefix, base_url),
            base_url: base_url.into(),
            ..Arc::unwrap_or_clone(self.shared)
        })
    }

    /// Where [`claim_service`](super::claim_service) is mounted, for the links of claims: a path of
    /// this server, or a whole URL. `/claim` if this is not called.
    #[must_use]
    pub fn claim_url(self, url: &str) -> Self {
        Self::from_shared(Shared { claim_url: url.into(), ..Arc::unwrap_or_clone(self.shared) })
    }

    /// The store's calendar, whose time zone and next reset are told; UTC if this is not called.
    #[must_use]
    pub fn calendar(self, calendar: Calendar) -> Self {
        let mut shared = Arc::unwrap_or_clone(self.shared);
        shared.facts.calendar = calendar;
        Self::from_shared(shared)
    }

    /// For how many days the store keeps single requests, which is told with them; 0 if this is not
    /// called.
    #[must_use]
    pub fn retention_days(self, days: u32) -> Self {
        Self::from_shared(Shared { retention_days: days, ..Arc::unwrap_or_clone(self.shared) })
    }

    /// Finds rejected requests without a known key in this log, too.
    #[must_use]
    pub fn rejections(self, rejections: RejectionLog) -> Self {
        Self::from_shared(Shared { rejections, ..Arc::unwrap_or_clone(self.shared) })
    }

    /// Tells from how many addresses each key was used; not told if this is not called.
    #[must_use]
    pub fn client_addrs(self, client_addrs: ClientAddrs) -> Self {
        let client_addrs = Some(client_addrs);
        Self::from_shared(Shared { client_addrs, ..Arc::unwrap_or_clone(self.shared) })
    }

    /// Notes reads in the audit trail, too (`admin.read`); off if this is not called. A read that
    /// cannot be noted is refused.
    #[must_use]
    pub fn audit_reads(self, audit_reads: bool) -> Self {
        Self::from_shared(Shared { audit_reads, ..Arc::unwrap_or_clone(self.shared) })
    }

    /// Settings that operators may see: names, and values unless they are secret or not set.
    #[must_use]
    pub fn settings(self, settings: impl IntoIterator<Item = (String, Option<String>)>) -> Self {
        let mut shared = Arc::unwrap_or_clone(self.shared);
        shared.facts.settings.extend(settings);
        Self::from_shared(shared)
    }

    /// Describes one more refusal of every call in `openapi.json`: one that is answered by what
    /// stands around this service.
    #[must_use]
    pub fn refused_outside(self, rejection: Rejection) -> Self {
        let mut shared = Arc::unwrap_or_clone(self.shared);
        shared.refused_outside.push(rejection);
        Self::from_shared(shared)
    }

    /// Answers 403 to every client whose [`ClientAddr`] is missing or does not pass the filter.
    #[must_use]
    pub fn allow(self, filter: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self::from_shared(Shared {
            allow: Some(Arc::new(filter)),
            ..Arc::unwrap_or_clone(self.shared)
        })
    }
}

impl<S: AdminStore, R> AdminService<S, R> {
    /// Notes in the audit trail that something around this service has refused an attempt of this
    /// source. No more is noted than of attempts that the service itself refuses.
    pub async fn note_refused(&self, code: &'static str, source: Option<IpAddr>) {
        self.shared.note_refused(code, source).await;
    }

    /// Counts and notes, as `code`, an attempt of this source to use something beside this service
    /// without a right token.
    ///
    /// # Errors
    ///
    /// The answer in its place when the source has made too many attempts, there and here together.
    pub async fn count_attempt(
        &self,
        code: &'static str,
        source: Option<IpAddr>,
    ) -> Result<(), Rejection> {
        self.shared.count_attempt(code, source).await.map_err(Refusal::into_rejection)
    }
}

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    async fn answer<B>(self: &Arc<Self>, request: Request<B>) -> Response<AdminBody>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let answer = self.call(&head, body).await;
        let mut answer = answer.unwrap_or_else(|refusal| {
            refusal.into_rejection().render(&self.reject).map(ResponseBody::own)
        });
        guard(answer.headers_mut());
        if head.method == Method::HEAD {
            if let Some(length) = answer.body().size_hint().exact() {
                answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            }
            *answer.body_mut() = ResponseBody::own(Bytes::new());
        }
        answer
    }

    async fn call<B>(
        self: &Arc<Self>,
        head: &Parts,
        body: B,
    ) -> Result<Response<AdminBody>, Refusal>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let ip = head.extensions.get().map(|ClientAddr(ip)| *ip);
        if let Err(refusal) = self.check_address(ip) {
            self.note_refused(refusal.code(), ip).await;
            return Err(refusal);
        }
        let path = head.uri.path().strip_prefix(&*self.prefix);
        let path = path.filter(|path| path.is_empty() || path.starts_with('/'));
        let path = path.ok_or_else(Refusal::not_found)?;
        if route::is_page(&head.method, path)? {
            return Ok(self.page.response().map(ResponseBody::own));
        }
        let found = route::find(&self.api().calls, &head.method, path);
        let by = match &found {
            Ok((call, _)) if call.is_open => Actor { token_id: String::new(), ip },
            _ => self.authenticate(head, ip).await?,
        };
        let (call, key) = found?;
        self.note_read(call, key, &by).await?;
        let unread = Unread {
            by,
            key: key.map(str::to_owned),
            query: head.uri.query().map(str::to_owned),
            body: if call.reads_body { read_body(body, call.takes.1).await? } else { Bytes::new() },
            headers: head.headers.clone(),
        };
        (call.run)(self.clone(), unread).await
    }
}

impl<S, R, B> Service<Request<B>> for AdminService<S, R>
where
    S: AdminStore,
    R: Reject + Send + Sync + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<AdminBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let shared = self.shared.clone();
        ResponseFuture::new(async move { shared.answer(request).await })
    }
}

impl<S, R> Clone for AdminService<S, R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S, R> fmt::Debug for AdminService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminService")
            .field("prefix", &self.shared.prefix)
            .field("tokens", &self.shared.tokens)
            .finish_non_exhaustive()
    }
}
