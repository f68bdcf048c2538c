//! Dispatches each request to the service of its route.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt, Either, Full, Limited, combinators::UnsyncBoxBody};
use pin_project_lite::pin_project;
use tower::{BoxError, Service, ServiceExt, util::BoxCloneSyncService};
use tower_quota::{
    admin::{AdminService, AdminTokens, store::AdminStore},
    body::ResponseBody,
    proxy::RequestTarget,
    request::RequestContext,
    server::{RejectedHead, RequestBody},
    usage::{prefers_html, usage_page},
};

use crate::{
    home::Home,
    ops::Ops,
    rejections,
    route::{self, Route, with_version},
};

/// A request as the layers see it.
pub(crate) type GatewayRequest = Request<Limited<RequestBody>>;
/// The body of a response. The forwarded body `B` is not boxed; the others are short.
pub(crate) type GatewayBody<B> = ResponseBody<Either<B, SideBody>>;
/// The body of a response of [`SideRoutes`].
pub(crate) type SideBody = UnsyncBoxBody<Bytes, BoxError>;
/// A service of any other route than the upstream's.
pub(crate) type SideService = BoxCloneSyncService<GatewayRequest, Response<SideBody>, Infallible>;

/// Dispatches requests: most to the upstream, which is called directly, others to [`SideRoutes`].
pub(crate) struct Router<F, S> {
    /// Forwards requests that cost a unit of the key's quota.
    pub(crate) upstream: F,
    pub(crate) side: Arc<SideRoutes<S>>,
}

/// The services of the other routes, and the rules for all of them.
pub(crate) struct SideRoutes<S> {
    /// Forwards requests that need a key and cost no unit.
    pub(crate) free: SideService,
    /// Reports a key's usage to its holder.
    pub(crate) usage: SideService,
    /// The admin API and page.
    pub(crate) admin: SideService,
    /// Issues keys to holders of claim links.
    pub(crate) claim: SideService,
    /// The cached list of the upstream's models.
    pub(crate) models: SideService,
    /// The page at `/`.
    pub(crate) home: Home,
    /// Health, readiness and metrics.
    pub(crate) ops: Ops<S>,
    /// Tokens that open `/metrics`.
    pub(crate) metrics_tokens: Vec<AdminTokens>,
    /// Rate limits and audits wrong tokens on `/metrics` together with those on the admin API.
    pub(crate) attempts: AdminService<S>,
    /// Maximum length of a request body.
    pub(crate) max_body_bytes: usize,
}

impl<F, B, S> Service<Request<RequestBody>> for Router<F, S>
where
    F: Service<GatewayRequest, Response = Response<B>, Error = Infallible>,
    S: AdminStore,
{
    type Response = Response<GatewayBody<B>>;
    type Error = Infallible;
    type Future = RouterFuture<F::Future, S>;

    /// All routes wait for the upstream's stack, which must always be ready: it has no limit of its own here.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.upstream.poll_ready(cx)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let side = self.side.clone();
        let route = Route::of(request.uri().path());
        let state = match side.admit(route, request) {
            Ok((Route::Upstream, request)) if !route::is_free(&request) => {
                State::Upstream { future: self.upstream.call(request) }
            }
            Ok((route, request)) => {
                State::Side { future: Box::pin(side.clone().respond(route, request)) }
            }
            Err(rejection) => State::Rejected { response: Some(rejection) },
        };
        RouterFuture { state, route, side }
    }
}

impl<F: Clone, S> Clone for Router<F, S> {
    fn clone(&self) -> Self {
        Self { upstream: self.upstream.clone(), side: self.side.clone() }
    }
}

pin_project! {
    /// Response future of [`Router`].
    pub(crate) struct RouterFuture<F, S> {
        #[pin]
        state: State<F>,
        route: Option<Route>,
        side: Arc<SideRoutes<S>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Upstream { #[pin] future: F },
        // Boxed: rare, and larger than the other.
        Side { future: Pin<Box<dyn Future<Output = Response<SideBody>> + Send>> },
        Rejected { response: Option<Response<Bytes>> },
    }
}

impl<F, B, S> Future for RouterFuture<F, S>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    S: AdminStore,
{
    type Output = Result<Response<GatewayBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.state.project() {
            StateProj::Upstream { future } => {
                ready!(future.poll(cx))?.map(|body| ResponseBody::inner(Either::Left(body)))
            }
            StateProj::Side { future } => ready!(future.as_mut().poll(cx))
                .map(|body| ResponseBody::inner(Either::Right(body))),
            StateProj::Rejected { response } => {
                own(response.take().expect("`RouterFuture` polled after completion"))
            }
        };
        this.side.ops.count(*this.route, response.status());
        Poll::Ready(Ok(response))
    }
}

impl<S: AdminStore> SideRoutes<S> {
    /// Returns the request for its service and the route of that, or the rejection of a request that breaks
    /// a rule.
    #[expect(clippy::result_large_err, reason = "the request is larger than the rejection")]
    fn admit(
        &self,
        route: Option<Route>,
        request: Request<RequestBody>,
    ) -> Result<(Route, GatewayRequest), Response<Bytes>> {
        let (mut head, body) = request.into_parts();
        if let Some(bad) = head.extensions.get::<RejectedHead>() {
            return Err(rejections::bad_head(*bad));
        }
        RequestTarget::check_once(&mut head).map_err(rejections::closing)?;
        if let Some(base) = route::doubled_base(head.uri.path()) {
            return Err(rejections::doubled_base(base));
        }
        let route = route.ok_or_else(rejections::not_found)?;
        if let Some(allow) = route.rejects(&head.method) {
            return Err(rejections::wrong_method(allow));
        }
        if content_length(&head.headers) > self.max_body_bytes as u64 {
            return Err(rejections::closing(rejections::too_large(self.max_body_bytes)));
        }
        if let Some(uri) = with_version(&head.uri) {
            head.uri = uri;
        }
        let route = match route {
            Route::Models if route::bypasses_models_cache(&head) => Route::Upstream,
            route => route,
        };
        let body = Limited::new(body, self.max_body_bytes);
        Ok((route, Request::from_parts(head, body)))
    }

    /// Responds to a request that costs nothing.
    async fn respond(self: Arc<Self>, route: Route, request: GatewayRequest) -> Response<SideBody> {
        let response = match route {
            Route::Upstream => return call(&self.free, request).await,
            Route::Models => return call(&self.models, request).await,
            Route::Usage if prefers_html(request.headers()) => usage_page(),
            Route::Usage => return call(&self.usage, request).await,
            Route::Admin => return call(&self.admin, request).await,
            Route::Claim => return call(&self.claim, request).await,
            Route::Metrics if !self.may_read_metrics(request.headers()) => {
                self.reject_metrics(request.extensions().get()).await
            }
            Route::Metrics => self.ops.metrics().await,
            Route::Health => self.ops.health(),
            Route::Ready => self.ops.ready().await,
            Route::Home if prefers_html(request.headers()) => self.home.response(),
            Route::Home => rejections::not_found(),
        };
        boxed(response.map(Full::new))
    }

    fn may_read_metrics(&self, headers: &HeaderMap) -> bool {
        let mut tokens = self.metrics_tokens.iter();
        tokens.any(|tokens| tokens.verify(headers).is_some())
    }

    async fn reject_metrics(&self, context: Option<&RequestContext>) -> Response<Bytes> {
        let rejection = rejections::no_metrics_token();
        let source = context.and_then(RequestContext::client_addr);
        let counted = self.attempts.count_attempt(rejection.code, source).await;
        rejections::render(counted.err().unwrap_or(rejection))
    }
}

/// Boxes the service of a side route.
pub(crate) fn side<T, B>(service: T) -> SideService
where
    T: Service<GatewayRequest, Response = Response<B>, Error = Infallible, Future: Send>,
    T: Clone + Send + Sync + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    SideService::new(service.map_response(boxed))
}

pub(crate) fn boxed<B>(response: Response<B>) -> Response<SideBody>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

async fn call(service: &SideService, request: GatewayRequest) -> Response<SideBody> {
    match service.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Wraps a response of the gateway itself.
pub(crate) fn own<B>(response: Response<Bytes>) -> Response<GatewayBody<B>> {
    response.map(ResponseBody::full)
}

/// Returns the declared length, or 0. hyper has rejected one that is not a number.
fn content_length(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH);
    length
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse().ok())
        .unwrap_or(0)
}
