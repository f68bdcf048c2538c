//! The way to the upstream: the proxy, and its list of models from a cache.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri};
use http_body_util::{Either, Empty, Limited};
use hyper::body::Incoming;
use tower::{BoxError, Service, ServiceExt};
use tower_quota::{
    openai::{OpenAiErrors, proxy_rules},
    proxy::{
        CachedGet, ClientOptions, Timeouts, UpstreamBase, UpstreamClient, UpstreamProxyService,
    },
};

use crate::{router::GatewayRequest, settings};

/// A client's body, or none for the gateway's own requests.
type RequestBody = Either<Limited<Incoming>, Empty<Bytes>>;
/// The proxy over hyper-util's pool.
pub(crate) type Proxy = UpstreamProxyService<UpstreamClient<RequestBody>, OpenAiErrors>;

/// What the proxy answers.
pub(crate) type ProxyResponse = <Proxy as Service<Request<RequestBody>>>::Response;

/// How long the list of models is kept.
const MODELS_TIME_TO_LIVE: Duration = Duration::from_secs(600);

/// Forwards to `base` with the sponsor's key.
pub(crate) fn proxy(base: UpstreamBase, settings: &settings::Upstream) -> Result<Proxy, BoxError> {
    let mut options = ClientOptions::default();
    options.connect_timeout = settings.connect_timeout;
    let proxy = UpstreamProxyService::new(UpstreamClient::new(options)?, base)
        .mount("/v1")
        .rules(proxy_rules())
        .timeouts(Timeouts::new(settings.head_timeout, settings.idle_timeout))
        .reject(OpenAiErrors);
    Ok(match &settings.api_key {
        Some(key) => proxy.credential(HeaderValue::try_from(format!("Bearer {key}"))?),
        None => proxy,
    })
}

/// The proxy as the layers call it.
pub(crate) fn forward(
    proxy: Proxy,
) -> impl Service<GatewayRequest, Response = ProxyResponse, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    proxy.map_request(|request: GatewayRequest| request.map(Either::Left))
}

/// The upstream's list of models, asked for at most once in ten minutes.
pub(crate) fn models(proxy: Proxy) -> CachedGet<Proxy, fn() -> Request<RequestBody>, OpenAiErrors> {
    let request = || {
        let mut request = Request::new(Either::Right(Empty::new()));
        *request.uri_mut() = Uri::from_static("/v1/models");
        request
    };
    CachedGet::new(proxy, request, MODELS_TIME_TO_LIVE, OpenAiErrors)
}
