//! The services over a store in memory, in an axum application: pages and API need only the traits of stores.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Router,
    body::Bytes,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::post,
};
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};
use tower::{Layer, ServiceBuilder};
use tower_quota::{
    admin::{AdminTokens, admin_service, claim_service},
    auth::TrialKeyAuthLayer,
    openai::OpenAiUsage,
    quota::DailyQuotaLayer,
    request::RequestContext,
    usage::{UsageRecorderLayer, usage_service},
};

use crate::common::{ADMIN_TOKEN, memory_store, noon_calendar};

/// A server that ends with this.
pub(crate) struct MemoryGateway {
    address: SocketAddr,
    _runtime: Runtime,
}

impl MemoryGateway {
    pub(crate) fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(axum::serve(listener, app()).into_future());
        Self { address, _runtime: runtime }
    }

    /// The address of a path on it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn app() -> Router {
    let store = memory_store();
    let admin = admin_service(store.clone(), AdminTokens::parse(ADMIN_TOKEN).unwrap())
        .retention_days(7)
        .settings([("USAGE_RETENTION_DAYS".to_owned(), Some("7".to_owned()))]);
    let auth = TrialKeyAuthLayer::new(store.clone());
    let trial = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(store.clone()).format(OpenAiUsage).watch_requests())
        .layer(auth.clone())
        .layer(DailyQuotaLayer::new(store.clone()));
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .layer(trial)
        .route_service("/usage", auth.layer(usage_service(store.clone(), noon_calendar())))
        .route_service("/claim", claim_service(store))
        .route_service("/admin", admin.clone())
        .route_service("/admin/{*call}", admin)
        .layer(from_fn(know_address))
}

async fn chat(body: Bytes) -> impl IntoResponse {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let response = json!({
        "object": "chat.completion",
        "model": request["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}}],
        "usage": {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10},
    });
    ([(CONTENT_TYPE, "application/json")], response.to_string())
}

/// Clients are known by the address that they name, else by this machine's.
async fn know_address(mut request: Request, next: Next) -> Response {
    let named = request.headers().get("x-forwarded-for").and_then(|value| value.to_str().ok());
    let address: Option<IpAddr> = named.and_then(|address| address.parse().ok());
    let address = address.unwrap_or([127, 0, 0, 1].into());
    RequestContext::of(request.extensions_mut()).set_client_addr(address);
    next.run(request).await
}
