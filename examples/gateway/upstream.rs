//! The way to the upstream: the proxy, and its list of models from a cache.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{Empty, Full, Limited};
use tower::{BoxError, Service, service_fn};
use tower_quota::{
    openai::{OpenAiErrors, proxy_rules, stream_usage::IncludedBody},
    proxy::{
        CachedGet, ClientOptions, RequestBody, Timeouts, UpstreamBase, UpstreamClient,
        UpstreamProxyService, upstream_client,
    },
    usage,
};

use crate::{router::GatewayRequest, settings, upload::Upload};

/// The proxy over hyper-util's pool, for request bodies of this kind.
type Proxy<B> = UpstreamProxyService<UpstreamClient<RequestBody<B>>, OpenAiErrors>;

/// A holder's request body, as the layers hand it on.
type HolderBody = IncludedBody<usage::RequestBody<Limited<Upload>>>;

/// Where the upstream is and how it is spoken to.
pub(crate) struct Upstream<'a> {
    pub(crate) base: UpstreamBase,
    pub(crate) settings: &'a settings::Upstream,
}

impl Upstream<'_> {
    /// Forwards holders' requests with the sponsor's key.
    pub(crate) fn proxy(&self) -> Result<Proxy<HolderBody>, BoxError> {
        let client = upstream_client(self.client_options())?;
        self.configure(UpstreamProxyService::new(client, self.base.clone()))
    }

    /// Answers the list of models, asked for at most once in ten minutes.
    pub(crate) fn models(
        &self,
    ) -> Result<
        impl Service<GatewayRequest, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
        BoxError,
    > {
        let client = upstream_client(self.client_options())?;
        let proxy = self.configure(UpstreamProxyService::new(client, self.base.clone()))?;
        let models = CachedGet::new(proxy, || {
            let mut request = Request::new(Empty::<Bytes>::new());
            *request.uri_mut() = http::Uri::from_static("/v1/models");
            request.headers_mut().insert(header::HOST, HeaderValue::from_static("gateway"));
            request
        })
        .reject(OpenAiErrors);
        Ok(service_fn(move |_| {
            let models = models.clone();
            async move { Ok(models.get().await.map(Full::new)) }
        }))
    }

    fn client_options(&self) -> ClientOptions {
        ClientOptions::default().connect_timeout(self.settings.connect_timeout)
    }

    fn configure<B>(
        &self,
        proxy: UpstreamProxyService<UpstreamClient<RequestBody<B>>>,
    ) -> Result<Proxy<B>, BoxError> {
        let timeouts =
            Timeouts::new().head(self.settings.head_timeout).idle(self.settings.idle_timeout);
        let proxy = proxy.mount("/v1").rules(proxy_rules()).timeouts(timeouts).reject(OpenAiErrors);
        Ok(match &self.settings.api_key {
            Some(key) => proxy.credential(HeaderValue::try_from(format!("Bearer {key}"))?),
            None => proxy,
        })
    }
}
