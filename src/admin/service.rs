use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};
use http_body::Body;
use tower_service::Service;

use crate::{
    admin::{
        access::tokens::AdminTokens,
        client_addrs::ClientAddrs,
        http::{
            add_security_headers, body::AdminBody, call::RawRequest, error::AdminError,
            input::read_body, remove_body, route,
        },
        page::AdminPage,
        rejections::RejectionLog,
        shared::Shared,
        store::{Actor, AdminStore},
    },
    clock::Calendar,
    error::{Reject, Rejection, catalog},
    key::{KeyLimits, Limit},
    request::RequestContext,
};

/// Creates the admin API and page over `store`, for holders of one of these tokens. See the
/// [module](super) for its calls.
pub fn admin_service<S>(store: S, tokens: AdminTokens) -> AdminService<S> {
    AdminService { shared: Arc::new(Shared::new(store, tokens)) }
}

/// The service that [`admin_service`] makes.
pub struct AdminService<S> {
    shared: Arc<Shared<S>>,
}

impl<S: Clone> AdminService<S> {
    /// Sets an option, and discards the OpenAPI document, which depends on them.
    fn with(mut self, set: impl FnOnce(&mut Shared<S>)) -> Self {
        let shared = Arc::make_mut(&mut self.shared);
        shared.api = Arc::default();
        set(shared);
        self
    }

    /// Sets the renderer of rejections.
    #[must_use]
    pub fn reject(self, reject: impl Reject) -> Self {
        self.with(|shared| shared.reject = Arc::new(reject))
    }

    /// Sets the daily limit of keys that are issued without one. The default is 200.
    #[must_use]
    pub fn default_daily_limit(self, default_daily_limit: Limit) -> Self {
        self.with(|shared| shared.default_limits.daily = default_daily_limit)
    }

    /// Sets the other limits of keys that are issued without them. There are none by default.
    #[must_use]
    pub fn default_limits(self, default_limits: KeyLimits) -> Self {
        self.with(|shared| shared.default_limits.others = default_limits)
    }

    /// Sets the path at which the service is mounted, as request paths contain it. The default is
    /// `/admin`.
    #[must_use]
    pub fn prefix(self, prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/');
        self.with(|shared| {
            shared.page = AdminPage::new(prefix, &shared.base_url);
            shared.prefix = prefix.into();
        })
    }

    /// Sets the base URL that the page shows with a new key, for example `https://gateway.example/v1`.
    /// The default is `/v1` of the page's own server.
    #[must_use]
    pub fn base_url(self, base_url: &str) -> Self {
        self.with(|shared| {
            shared.page = AdminPage::new(&shared.prefix, base_url);
            shared.base_url = base_url.into();
        })
    }

    /// Sets where [`claim_service`](super::claim_service) is mounted, for claim links: a path on this
    /// server or an absolute URL. The default is `/claim`.
    #[must_use]
    pub fn claim_url(self, url: &str) -> Self {
        self.with(|shared| shared.claim_url = url.into())
    }

    /// Sets the store's calendar, for the time zone and the next reset in reports. The default is UTC.
    #[must_use]
    pub fn calendar(self, calendar: Calendar) -> Self {
        self.with(|shared| shared.process.calendar = calendar)
    }

    /// Sets the number of days for which the store keeps single requests, shown with them. The default
    /// is 0.
    #[must_use]
    pub fn retention_days(self, days: u32) -> Self {
        self.with(|shared| shared.retention_days = days)
    }

    /// Also searches this log for rejected requests without a known key.
    #[must_use]
    pub fn rejections(self, rejections: RejectionLog) -> Self {
        self.with(|shared| shared.rejections = rejections)
    }

    /// Shows the number of addresses from which each key was used. The default is not to show it.
    #[must_use]
    pub fn client_addrs(self, client_addrs: ClientAddrs) -> Self {
        self.with(|shared| shared.client_addrs = Some(client_addrs))
    }

    /// Sets whether reads are audited, too (`admin.read`). A read that cannot be audited is rejected.
    /// The default is `false`.
    #[must_use]
    pub fn audit_reads(self, audit_reads: bool) -> Self {
        self.with(|shared| shared.audit_reads = audit_reads)
    }

    /// Adds settings that operators may see: names with values, `None` for those that are not set.
    /// Secrets must be masked.
    #[must_use]
    pub fn settings(self, settings: impl IntoIterator<Item = (String, Option<String>)>) -> Self {
        self.with(|shared| shared.process.settings.extend(settings))
    }

    /// Adds a rejection to the description of every call in `openapi.json`: one that a layer around
    /// this service responds with.
    #[must_use]
    pub fn describe_rejection(self, rejection: Rejection) -> Self {
        self.with(|shared| shared.outer_rejections.push(rejection))
    }

    /// Rejects, with 403, every client whose address is unknown or does not pass the filter. The
    /// server sets it with [`RequestContext::set_client_addr`].
    #[must_use]
    pub fn allow(self, filter: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.with(|shared| shared.allow = Some(Arc::new(filter)))
    }
}

impl<S: AdminStore> AdminService<S> {
    /// Writes to the audit trail that a layer around this service has rejected an attempt of this
    /// source. These entries share the budget of those that the service itself writes.
    pub async fn audit_rejection(&self, code: &'static str, source: Option<IpAddr>) {
        self.shared.audit_rejection(code, source).await;
    }

    /// Counts and audits, as `code`, an attempt of this source to use another service without a valid
    /// token.
    ///
    /// # Errors
    ///
    /// The rejection to respond with when the source has made too many attempts, including those at
    /// this service.
    pub async fn count_attempt(
        &self,
        code: &'static str,
        source: Option<IpAddr>,
    ) -> Result<(), Rejection> {
        self.shared.count_attempt(code, source).await.map_err(AdminError::into_rejection)
    }
}

impl<S: AdminStore> Shared<S> {
    async fn respond<B>(self: &Arc<Self>, request: Request<B>) -> Response<AdminBody>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let response = self.call(&head, body).await;
        let mut response = response.unwrap_or_else(|error| {
            error.into_rejection().render(&*self.reject, &head).map(AdminBody::from)
        });
        add_security_headers(response.headers_mut());
        if head.method == Method::HEAD {
            remove_body(&mut response);
        }
        response
    }

    async fn call<B>(
        self: &Arc<Self>,
        head: &Parts,
        body: B,
    ) -> Result<Response<AdminBody>, AdminError>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let ip = head.extensions.get().and_then(RequestContext::client_addr);
        if let Err(error) = self.check_address(ip) {
            self.audit_rejection(error.code(), ip).await;
            return Err(error);
        }
        let path = head.uri.path().strip_prefix(&*self.prefix);
        let path = path.filter(|path| path.is_empty() || path.starts_with('/'));
        let path = path.ok_or(catalog::NOT_FOUND)?;
        if route::is_page(&head.method, path)? {
            return Ok(self.page.response().map(AdminBody::from));
        }
        let route = route::find(&self.api().calls, &head.method, path);
        let by = match &route {
            Ok((call, _)) if call.is_public => Actor { token_id: String::new(), ip },
            _ => self.authenticate(head, ip).await?,
        };
        let (call, segment) = route?;
        self.audit_read(call, segment.filter(|_| call.takes_key()), &by).await?;
        let raw = RawRequest {
            by,
            segment: segment.map(str::to_owned),
            query: head.uri.query().map(str::to_owned),
            body: if call.reads_body {
                read_body(body, call.max_body_len).await?
            } else {
                Bytes::new()
            },
            headers: head.headers.clone(),
        };
        (call.handle)(self.clone(), raw).await
    }
}

impl<S, B> Service<Request<B>> for AdminService<S>
where
    S: AdminStore,
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
        ResponseFuture::new(async move { shared.respond(request).await })
    }
}

impl<S> Clone for AdminService<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S> fmt::Debug for AdminService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminService")
            .field("prefix", &self.shared.prefix)
            .field("tokens", &self.shared.tokens)
            .finish_non_exhaustive()
    }
}

/// Response future of [`AdminService`] and of [`ClaimService`](super::ClaimService).
pub struct ResponseFuture<B = AdminBody>(Pin<Box<dyn Future<Output = Response<B>> + Send>>);

impl<B> ResponseFuture<B> {
    pub(super) fn new(future: impl Future<Output = Response<B>> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }
}

impl<B> Future for ResponseFuture<B> {
    type Output = Result<Response<B>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl<B> fmt::Debug for ResponseFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
