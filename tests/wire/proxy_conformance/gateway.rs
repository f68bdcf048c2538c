//! The proxy as a server: HTTP/1 and HTTP/2 in front, the ready transport behind.

use std::{convert::Infallible, error::Error};

use http::{HeaderValue, Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::Service;
use tower_quota::{
    openai::{OpenAiErrors, proxy_rules},
    proxy::{
        ClientOptions, RequestBody, UpstreamClient, UpstreamProxyService, upstream_client_over,
    },
};

use super::tls;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

pub(crate) const SPONSOR: &str = "sk-sponsor-0123456789";

pub(crate) type Proxy<B = Incoming> = UpstreamProxyService<UpstreamClient<RequestBody<B>>>;

/// The proxy to this upstream's `/api`, mounted at `/v1`.
pub(crate) fn proxy<B>(upstream: &str) -> Proxy<B>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send,
{
    let client = upstream_client_over(tls::connector(), ClientOptions::default());
    UpstreamProxyService::new(client, format!("{upstream}/api").parse().unwrap())
        .mount("/v1")
        .credential(HeaderValue::from_str(&format!("Bearer {SPONSOR}")).unwrap())
        .rules(proxy_rules())
        .reject(OpenAiErrors)
}

/// The address of a server of this proxy.
pub(crate) async fn gateway(upstream: &str) -> String {
    serve(proxy(upstream)).await
}

/// Serves HTTP/1 and HTTP/2 on a free port; gives the server's address as `http://…`.
pub(crate) async fn serve<S, B>(service: S) -> String
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "one task for the server")]
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).unwrap();
            let service = TowerToHyperService::new(service.clone());
            let server = auto::Builder::new(TokioExecutor::new());
            let io = TokioIo::new(socket);
            connections.spawn(async move { server.serve_connection(io, service).await });
        }
    });
    address
}
