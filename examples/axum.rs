//! The three layers around an axum router, with the admin page and API beside it.
//!
//! Run `cargo run --example axum`, then the commands that it prints.

use std::error::Error;

use axum::{Extension, Router, routing::get};
use tower::ServiceBuilder;
use tower_quota::{
    admin::{AdminTokens, admin_service},
    auth::TrialKeyAuthLayer,
    key::{KeyId, KeyRecord, Limit, SecretKey},
    quota::DailyQuotaLayer,
    request::RequestContext,
    store::memory::MemoryStore,
    usage::UsageRecorderLayer,
};

async fn hello(Extension(context): Extension<RequestContext>) -> String {
    let key = context.key().map(|key| key.id.to_string());
    format!("hello {}\n", key.unwrap_or_default())
}

/// Returns the app over a store, with the operators' tokens.
pub fn app(store: MemoryStore, tokens: AdminTokens) -> Router {
    let admin = admin_service(store.clone(), tokens).prefix("/operators");
    let quota = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(UsageRecorderLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store));
    Router::new()
        .route("/hello", get(hello))
        // Not `layer`: a path that is no route costs nothing.
        .route_layer(quota)
        .route_service("/operators", admin.clone())
        .route_service("/operators/{*call}", admin)
        .route("/healthz", get(|| async { "needs no key" }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = MemoryStore::new();
    let key = SecretKey::parse("trial-alice-key-123")?;
    store.insert(&key, KeyRecord::new(KeyId::from("alice"), Limit::Units(3)))?;
    let (tokens, token) = AdminTokens::generate();

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    println!(
        "three requests a day: curl -i -H 'Authorization: Bearer {}' http://{address}/hello",
        key.expose()
    );
    println!("admin page: http://{address}/operators with the token {token}");
    axum::serve(listener, app(store, tokens)).await?;
    Ok(())
}
