use axum::{Router, routing::get};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_quota::{
    auth::TrialKeyAuthLayer,
    key::{KeyId, KeyRecord, Limit, SecretKey},
    quota::DailyQuotaLayer,
    store::memory::MemoryStore,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = MemoryStore::new();
    let key = SecretKey::parse("trial-alice-key-123")?;
    store.insert(&key, KeyRecord::new(KeyId::from("alice"), Limit::Units(2)))?;

    let quota = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store));
    let app = Router::new().route("/", get(|| async { "hello\n" })).route_layer(quota);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    println!("curl -i -H 'Authorization: Bearer {}' http://{address}", key.expose());
    Ok(axum::serve(listener, app).await?)
}
