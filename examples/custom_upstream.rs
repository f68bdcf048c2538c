//! The proxy over a custom transport: two upstreams behind Unix sockets, of which the second is used
//! while the first cannot be reached.
//!
//! `cargo run --example custom_upstream` starts both, stops the first, and prints which one responds.

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::Instant,
};
use tower::{Service, ServiceExt, steer::Steer};
use tower_quota::{
    error::UpstreamFault,
    proxy::{
        ClientOptions, RequestBody, ResponseBody, UpstreamBody, UpstreamClient,
        UpstreamProxyService, upstream_client_over,
    },
};

type Body = Full<Bytes>;

/// Connects to this socket, whichever host the URI names.
#[derive(Clone)]
pub struct UnixConnector(Arc<Path>);

impl Service<Uri> for UnixConnector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(path).await?)) })
    }
}

/// Returns a proxy to the upstream behind this socket.
pub fn over_unix_socket(path: &Path) -> UpstreamProxyService<UpstreamClient<RequestBody<Body>>> {
    let client = upstream_client_over(UnixConnector(path.into()), ClientOptions::default());
    let base = "http://upstream.internal".parse().expect("a base address");
    UpstreamProxyService::new(client, base)
}

/// Uses the first upstream, and the second one for `cooldown` after the first could not be reached.
///
/// The request that could not reach it gets 502: the proxy does not know whether it may keep a body
/// for a retry, so retries belong to a layer that does.
pub fn with_failover(
    first: &Path,
    second: &Path,
    cooldown: Duration,
) -> impl Service<
    Request<Body>,
    Response = Response<ResponseBody<UpstreamBody>>,
    Error = Infallible,
    Future: Send,
> {
    let failed: Arc<Mutex<Option<Instant>>> = Arc::default();
    let upstreams = [first, second].map(|path| {
        let failed = (path == first).then(|| failed.clone());
        over_unix_socket(path).map_response(move |response: Response<_>| {
            let is_unreached = response.extensions().get() == Some(&UpstreamFault::Unreached);
            if let Some(failed) = &failed
                && is_unreached
            {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            response
        })
    });
    Steer::new(upstreams, move |_: &Request<Body>, _: &[_]| {
        let failed = *failed.lock().unwrap_or_else(PoisonError::into_inner);
        usize::from(failed.is_some_and(|failed| failed.elapsed() < cooldown))
    })
}

/// Runs an upstream that responds with its name, until the future is dropped.
pub async fn upstream(listener: UnixListener, name: &'static str) -> io::Result<Infallible> {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await?;
        let respond = move |_: Request<Incoming>| async move {
            Ok::<_, Infallible>(Response::new(Body::from(name)))
        };
        connections.spawn(async move {
            http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(respond)).await
        });
    }
}

/// Sends one request and returns the status and text of the response.
pub async fn send<S, B>(service: &mut S) -> Result<(u16, String), Box<dyn Error + Send + Sync>>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let request = Request::get("/v1/models").header("host", "gateway").body(Body::default())?;
    let response = service.ready().await?.call(request).await?;
    let status = response.status().as_u16();
    let text = response.into_body().collect().await.map_err(Into::into)?.to_bytes();
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let dir = tempfile::tempdir()?;
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let mut upstreams = JoinSet::new();
    let stop = upstreams.spawn(upstream(UnixListener::bind(&first)?, "the first"));
    upstreams.spawn(upstream(UnixListener::bind(&second)?, "the second"));

    let mut service = with_failover(&first, &second, Duration::from_secs(10));
    println!("{:?}", send(&mut service).await?);
    stop.abort();
    upstreams.join_next().await;
    println!("stopped the first");
    for _ in 0..3 {
        println!("{:?}", send(&mut service).await?);
    }
    Ok(())
}
