//! How the order of the layers changes which requests are recorded.
//!
//! `cargo run --example layer_order`

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    key::{KeyId, KeyRecord, Limit, SecretKey},
    quota::DailyQuotaLayer,
    store::{UsageEvent, UsageSink, memory::MemoryStore},
    usage::UsageRecorderLayer,
};

type Body = Full<bytes::Bytes>;

/// A sink that prints each event.
#[derive(Clone)]
struct Printer;

impl UsageSink for Printer {
    fn record(&self, event: UsageEvent) {
        let (outcome, reason) = (event.outcome.as_str(), event.code.as_deref().unwrap_or("-"));
        println!("  {outcome:9} {reason:18} units {}", event.units);
    }
}

async fn hello<B>(_: Request<B>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new("hello".into()))
}

/// Returns a store with one key that has one request a day.
fn store(key: &SecretKey) -> Result<MemoryStore, BoxError> {
    let store = MemoryStore::new();
    store.insert(key, KeyRecord::new(KeyId::from("alice"), Limit::Units(1)))?;
    Ok(store)
}

/// Sends two requests with the key and one with an unknown key.
async fn send_requests<S, B>(service: S, key: &SecretKey) -> Result<(), BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Error: std::fmt::Debug>,
{
    for key in [key.expose(), key.expose(), "trial-key-of-nobody"] {
        let request = Request::get("/").header("x-api-key", key).body(Body::default())?;
        let Ok(response) = service.clone().oneshot(request).await;
        // The event is recorded when the body has ended.
        drop(response.into_body().collect().await);
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let key = SecretKey::parse("trial-key-manual-123")?;

    println!("usage, auth, quota: all requests");
    let all = store(&key)?;
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(Printer))
        .layer(TrialKeyAuthLayer::new(all.clone()))
        .layer(DailyQuotaLayer::new(all))
        .service(service_fn(hello));
    send_requests(service, &key).await?;

    println!("auth, usage, quota: requests with a known key");
    let known = store(&key)?;
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(known.clone()))
        .layer(UsageRecorderLayer::new(Printer))
        .layer(DailyQuotaLayer::new(known))
        .service(service_fn(hello));
    send_requests(service, &key).await?;

    println!("auth, quota, usage: admitted requests");
    let admitted = store(&key)?;
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(admitted.clone()))
        .layer(DailyQuotaLayer::new(admitted))
        .layer(UsageRecorderLayer::new(Printer))
        .service(service_fn(hello));
    send_requests(service, &key).await
}
