//! Connections to the upstream: direct or through a proxy, with TLS.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::Intercept,
    },
    rt::TokioIo,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer};
use tokio::net::TcpStream;
use tower::{BoxError, Service};

/// The connector of a client to the upstream.
pub(crate) type UpstreamConnector = HttpsConnector<TcpConnector>;

/// Creates a connector that trusts Mozilla's certificate authorities and `authorities`, and connects
/// through `proxy` if there is one.
pub(crate) fn connector(
    authorities: &[CertificateDer<'static>],
    proxy: Option<&Intercept>,
) -> Result<UpstreamConnector, BoxError> {
    let mut roots = mozilla_roots();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(tls_config(roots)?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(TcpConnector::new(proxy)))
}

/// Returns Mozilla's certificate authorities.
pub(crate) fn mozilla_roots() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

/// Returns the TLS of a client that trusts these certificate authorities.
pub(crate) fn tls_config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Connects directly, or through a tunnel that a proxy opens (`CONNECT`).
#[derive(Clone)]
pub(crate) enum TcpConnector {
    Direct(HttpConnector),
    Tunnel(Tunnel<HttpConnector>),
}

impl TcpConnector {
    fn new(proxy: Option<&Intercept>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let Some(proxy) = proxy else { return Self::Direct(tcp) };
        let tunnel = Tunnel::new(proxy.uri().clone(), tcp);
        Self::Tunnel(match proxy.basic_auth() {
            Some(authorization) => tunnel.with_auth(authorization.clone()),
            None => tunnel,
        })
    }
}

impl Service<Uri> for TcpConnector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(tcp) => tcp.poll_ready(cx).map_err(Into::into),
            Self::Tunnel(tunnel) => tunnel.poll_ready(cx).map_err(Into::into),
        }
    }

    fn call(&mut self, upstream: Uri) -> Self::Future {
        match self {
            Self::Direct(tcp) => {
                let connecting = tcp.call(upstream);
                Box::pin(async move { connecting.await.map_err(Into::into) })
            }
            Self::Tunnel(tunnel) => {
                let connecting = tunnel.call(with_port(upstream));
                Box::pin(async move { connecting.await.map_err(Into::into) })
            }
        }
    }
}

/// Adds port 80 to an `http` address without a port, as `Tunnel` assumes 443 for every scheme.
fn with_port(upstream: Uri) -> Uri {
    let address = (upstream.scheme_str(), upstream.host(), upstream.port());
    let (Some("http"), Some(host), None) = address else { return upstream };
    let authority = format!("{host}:80").parse().ok();
    let mut parts = upstream.clone().into_parts();
    parts.authority = authority;
    Uri::from_parts(parts).unwrap_or(upstream)
}
