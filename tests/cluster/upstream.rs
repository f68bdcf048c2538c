//! An upstream that counts the calls of each key and holds those that ask for it.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::common::{chat_json, eventually};

/// Counts calls by the `user` of their bodies, as keys do not travel upstream. It stops on drop.
pub(crate) struct CountingUpstream {
    address: SocketAddr,
    calls: Arc<Mutex<HashMap<String, u64>>>,
    holds: watch::Sender<bool>,
    server: JoinHandle<()>,
}

/// The body of a request whose calls are counted under this name.
pub(crate) fn body(name: &str, is_held: bool) -> Bytes {
    json!({"model": "m", "messages": [], "user": name, "is_held": is_held}).to_string().into()
}

impl CountingUpstream {
    #[expect(clippy::disallowed_methods, reason = "one task for the server")]
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(Mutex::new(HashMap::new()));
        let (holds, is_holding) = watch::channel(true);
        let server = tokio::spawn(serve(listener, calls.clone(), is_holding));
        Self { address, calls, holds, server }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The value for the gateway's `UPSTREAM_BASE_URL`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Number of calls under this name.
    pub(crate) fn calls(&self, name: &str) -> u64 {
        self.calls.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    /// Waits until this number of calls has reached it under this name.
    pub(crate) async fn reached_by(&self, name: &str, calls: u64) {
        eventually("calls at the upstream", || async { self.calls(name) >= calls }).await;
    }

    /// Holds from now on what is to be held, or releases all of it.
    pub(crate) fn hold(&self, is_holding: bool) {
        self.holds.send_replace(is_holding);
    }
}

impl Drop for CountingUpstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    listener: TcpListener,
    calls: Arc<Mutex<HashMap<String, u64>>>,
    is_holding: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (calls, is_holding) = (calls.clone(), is_holding.clone());
        let service =
            service_fn(move |request| respond(request, calls.clone(), is_holding.clone()));
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
    }
}

async fn respond(
    request: Request<Incoming>,
    calls: Arc<Mutex<HashMap<String, u64>>>,
    mut is_holding: watch::Receiver<bool>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let name = body["user"].as_str().unwrap_or_default().to_owned();
    *calls.lock().unwrap().entry(name).or_insert(0) += 1;
    if body["is_held"] == true {
        let _ = is_holding.wait_for(|is_holding| !is_holding).await;
    }
    let body = Full::from(chat_json().to_string());
    let response = Response::builder().header("content-type", "application/json");
    Ok::<_, Infallible>(response.body(body).unwrap()).map_err(|never| match never {})
}
