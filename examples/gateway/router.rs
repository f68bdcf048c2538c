//! Dispatches each request to the service of its route.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt, Either, Limited, combinators::UnsyncBoxBody};
use tower::{BoxError, Service, ServiceExt, service_fn};
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
pub(crate) type GatewayBody<B> = ResponseBody<Either<B, UnsyncBoxBody<Bytes, BoxError>>>;

/// The services behind the routes.
pub(crate) struct Router<F, N, U, A, C, M, S> {
    /// Forwards requests that cost a unit of the key's quota.
    pub(crate) upstream: F,
    /// Forwards requests that need a key and cost no unit.
    pub(crate) free: N,
    /// Reports a key's usage to its holder.
    pub(crate) usage: U,
    /// The admin API and page.
    pub(crate) admin: A,
    /// Issues keys to holders of claim links.
    pub(crate) claim: C,
    /// The cached list of the upstream's models.
    pub(crate) models: M,
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

impl<F, N, U, A, C, M, S> Router<F, N, U, A, C, M, S> {
    /// Converts the router into one service.
    pub(crate) fn into_service<FB, NB, UB, AB, CB, MB>(
        self,
    ) -> impl Handler<GatewayBody<FB>, RequestBody>
    where
        F: Handler<FB>,
        N: Handler<NB>,
        U: Handler<UB>,
        A: Handler<AB>,
        C: Handler<CB>,
        M: Handler<MB>,
        S: AdminStore,
        FB: Body<Data = Bytes> + Send + 'static,
        NB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        UB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        AB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        CB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        MB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let router = Arc::new(self);
        service_fn(move |request: Request<RequestBody>| {
            let router = router.clone();
            async move {
                let route = Route::of(request.uri().path());
                let response = router.route(request).await;
                router.ops.count(route, response.status());
                Ok(response)
            }
        })
    }

    async fn route<FB, NB, UB, AB, CB, MB>(
        &self,
        request: Request<RequestBody>,
    ) -> Response<GatewayBody<FB>>
    where
        F: Handler<FB>,
        N: Handler<NB>,
        U: Handler<UB>,
        A: Handler<AB>,
        C: Handler<CB>,
        M: Handler<MB>,
        S: AdminStore,
        NB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        UB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        AB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        CB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        MB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (mut head, body) = request.into_parts();
        if let Some(bad) = head.extensions.get::<RejectedHead>() {
            return own(rejections::bad_head(*bad));
        }
        if let Err(rejection) = RequestTarget::check_once(&mut head) {
            return own(rejections::closing(rejection));
        }
        if let Some(base) = route::doubled_base(head.uri.path()) {
            return own(rejections::doubled_base(base));
        }
        let Some(route) = Route::of(head.uri.path()) else {
            return own(rejections::not_found());
        };
        if let Some(allow) = route.rejects(&head.method) {
            return own(rejections::wrong_method(allow));
        }
        if content_length(&head.headers) > self.max_body_bytes as u64 {
            return own(rejections::closing(rejections::too_large(self.max_body_bytes)));
        }
        head.uri = with_version(&head.uri);
        let is_free = route::is_free(&head.method, head.uri.path());
        let bypasses_models_cache = route::bypasses_models_cache(&head);
        let request = Request::from_parts(head, Limited::new(body, self.max_body_bytes));
        match route {
            Route::Upstream if is_free => side(call(&self.free, request).await),
            Route::Upstream => {
                let response = call(&self.upstream, request).await;
                response.map(|body| ResponseBody::inner(Either::Left(body)))
            }
            Route::Models if bypasses_models_cache => side(call(&self.free, request).await),
            Route::Models => side(call(&self.models, request).await),
            Route::Usage if prefers_html(request.headers()) => own(usage_page()),
            Route::Usage => side(call(&self.usage, request).await),
            Route::Admin => side(call(&self.admin, request).await),
            Route::Claim => side(call(&self.claim, request).await),
            Route::Metrics if !self.may_read_metrics(request.headers()) => {
                own(self.reject_metrics(request.extensions().get()).await)
            }
            Route::Metrics => own(self.ops.metrics().await),
            Route::Health => own(self.ops.health()),
            Route::Ready => own(self.ops.ready().await),
            Route::Home if prefers_html(request.headers()) => own(self.home.response()),
            Route::Home => own(rejections::not_found()),
        }
    }

    fn may_read_metrics(&self, headers: &HeaderMap) -> bool {
        let mut tokens = self.metrics_tokens.iter();
        tokens.any(|tokens| tokens.verify(headers).is_some())
    }

    async fn reject_metrics(&self, context: Option<&RequestContext>) -> Response<Bytes>
    where
        S: AdminStore,
    {
        let rejection = rejections::no_metrics_token();
        let source = context.and_then(RequestContext::client_addr);
        let counted = self.attempts.count_attempt(rejection.code, source).await;
        rejections::render(counted.err().unwrap_or(rejection))
    }
}

/// A service for requests with the body `R`. Implemented for every such service.
pub(crate) trait Handler<B, R = Limited<RequestBody>>:
    Clone + Send + Sync + 'static
where
    Self: Service<Request<R>, Response = Response<B>, Error = Infallible, Future: Send>,
{
}

impl<H, B, R> Handler<B, R> for H
where
    H: Service<Request<R>, Response = Response<B>, Error = Infallible, Future: Send>,
    H: Clone + Send + Sync + 'static,
{
}

async fn call<H: Handler<B>, B>(handler: &H, request: GatewayRequest) -> Response<B> {
    match handler.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Wraps a response of the gateway itself.
pub(crate) fn own<B>(response: Response<Bytes>) -> Response<GatewayBody<B>> {
    response.map(ResponseBody::full)
}

/// Boxes the body of a response that is not forwarded.
fn side<B, S>(response: Response<S>) -> Response<GatewayBody<B>>
where
    S: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| ResponseBody::inner(Either::Right(body.map_err(Into::into).boxed_unsync())))
}

/// Returns the declared length, or 0. hyper has rejected one that is not a number.
fn content_length(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH);
    length
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse().ok())
        .unwrap_or(0)
}
