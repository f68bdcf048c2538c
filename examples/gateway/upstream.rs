//! The proxy to the upstream, and the cache of its list of models.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use http_body_util::{Empty, Full};
use tower::{BoxError, Service, service_fn};
use tower_quota::{
    openai::proxy_rules,
    proxy::{
        CachedGet, ClientOptions, CredentialCooldown, RequestBody, Timeouts, UpstreamBase,
        UpstreamClient, UpstreamCredential, UpstreamProxyService, upstream_client_over,
    },
};

use crate::{
    connector::connector, holder_errors::HolderErrors, router::GatewayRequest,
    settings::UpstreamSettings,
};

/// Time for which requests are rejected after the upstream has rejected the sponsor's key or balance.
pub(crate) const CREDENTIAL_COOLDOWN: Duration = Duration::from_secs(5);

/// The proxy over hyper-util's pool, for request bodies of type `B`.
type Proxy<B> = UpstreamProxyService<UpstreamClient<RequestBody<B>>>;

/// Builds the services that call the upstream.
pub(crate) struct Upstream<'a> {
    pub(crate) base: UpstreamBase,
    pub(crate) settings: &'a UpstreamSettings,
    pub(crate) errors: HolderErrors,
    pub(crate) credential: Option<UpstreamCredential>,
    pub(crate) cooldown: CredentialCooldown,
}

impl Upstream<'_> {
    /// Creates the proxy for requests that cost no unit. These are possible with an exhausted key, too, so
    /// the upstream's rejections of them do not start the cooldown for others.
    pub(crate) fn free_proxy<B>(&self) -> Result<Proxy<B>, BoxError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Ok(self.proxy()?.credential_cooldown(self.cooldown.observing()))
    }

    /// Creates the proxy that forwards requests with the sponsor's key.
    pub(crate) fn proxy<B>(&self) -> Result<Proxy<B>, BoxError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let options = ClientOptions::default().connect_timeout(self.settings.connect_timeout);
        let timeouts =
            Timeouts::new().head(self.settings.head_timeout).idle(self.settings.idle_timeout);
        let connector = connector(self.settings.authorities(), self.settings.proxy.as_ref())?;
        let client = upstream_client_over(connector, options);
        let proxy = UpstreamProxyService::new(client, self.base.clone())
            .mount("/v1")
            .rules(proxy_rules())
            .timeouts(timeouts)
            .credential_cooldown(self.cooldown.clone())
            .reject(self.errors.clone());
        Ok(match &self.credential {
            Some(credential) => proxy.credential(credential.clone()),
            None => proxy,
        })
    }

    /// Creates the service of the list of models, which is fetched at most once in ten minutes.
    pub(crate) fn models(
        &self,
    ) -> Result<
        impl Service<GatewayRequest, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
        + use<>,
        BoxError,
    > {
        let models = CachedGet::new(self.free_proxy::<Empty<Bytes>>()?, || {
            let mut request = Request::new(Empty::<Bytes>::new());
            *request.uri_mut() = http::Uri::from_static("/v1/models");
            request.headers_mut().insert(header::HOST, HeaderValue::from_static("gateway"));
            request
        })
        .json_only()
        .reject(self.errors.clone());
        Ok(service_fn(move |_| {
            let models = models.clone();
            async move { Ok(models.get().await.map(Full::new)) }
        }))
    }
}
