//! CORS for the API: allows the origins of `CORS_ALLOW_ORIGINS`.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderName, Method, Request, Response, StatusCode, header};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tower_http::cors::{self, AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use crate::route::allows_cors;

/// Time for which browsers cache the response to a preflight.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// Response headers that pages may read, in addition to the CORS-safelisted ones.
const EXPOSED_HEADERS: [HeaderName; 8] = [
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-should-retry"),
    header::RETRY_AFTER,
];

/// Responds to preflights of the API, and adds CORS headers to its other responses. Other paths, above
/// all `/admin`, never get any.
#[derive(Clone)]
pub(crate) struct ApiCorsLayer(Option<CorsLayer>);

impl ApiCorsLayer {
    /// Allows these origins. With `None`, preflights get 204 without CORS headers.
    pub(crate) fn new(origins: Option<AllowOrigin>) -> Self {
        Self(origins.map(|origins| {
            CorsLayer::new()
                .allow_origin(origins)
                .allow_methods(AllowMethods::mirror_request())
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers(EXPOSED_HEADERS)
                .max_age(PREFLIGHT_MAX_AGE)
        }))
    }
}

impl<S: Clone> Layer<S> for ApiCorsLayer {
    type Service = ApiCors<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ApiCors { cors: self.0.as_ref().map(|cors| cors.layer(inner.clone())), inner }
    }
}

/// The service of [`ApiCorsLayer`].
#[derive(Clone)]
pub(crate) struct ApiCors<S> {
    cors: Option<cors::Cors<S>>,
    inner: S,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for ApiCors<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ApiCorsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if let Some(cors) = &mut self.cors {
            ready!(cors.poll_ready(cx))?;
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let is_preflight = is_preflight(&request);
        let allows_cors = || allows_cors(request.uri().path());
        match &mut self.cors {
            // `CorsLayer` takes every OPTIONS for a preflight.
            Some(cors)
                if (is_preflight || request.method() != Method::OPTIONS) && allows_cors() =>
            {
                ApiCorsFuture::Cors { future: cors.call(request), is_preflight }
            }
            None if is_preflight && allows_cors() => ApiCorsFuture::NotAllowed,
            _ => ApiCorsFuture::Inner { future: self.inner.call(request) },
        }
    }
}

/// Returns whether the request is a CORS preflight (Fetch, section 3.3.2).
fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ORIGIN)
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

pin_project! {
    /// Response future of [`ApiCors`].
    #[project = ApiCorsFutureProj]
    pub(crate) enum ApiCorsFuture<F> {
        Cors { #[pin] future: cors::ResponseFuture<F>, is_preflight: bool },
        NotAllowed,
        Inner { #[pin] future: F },
    }
}

impl<F, B, E> Future for ApiCorsFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (mut response, is_preflight) = match self.project() {
            ApiCorsFutureProj::Cors { future, is_preflight } => {
                (ready!(future.poll(cx))?, *is_preflight)
            }
            ApiCorsFutureProj::NotAllowed => (Response::new(B::default()), true),
            ApiCorsFutureProj::Inner { future } => (ready!(future.poll(cx))?, false),
        };
        if is_preflight {
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        Poll::Ready(Ok(response))
    }
}
