//! What the order of the layers changes: who hears of which request.
//!
//! `cargo run --example layer_order`

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    key::{DailyLimit, KeyId, KeyRecord, SecretKey},
    quota::DailyQuotaLayer,
    store::{UsageEvent, UsageSink, memory::MemoryStore},
    usage::UsageRecorderLayer,
};

type Body = Full<bytes::Bytes>;

/// Prints what it hears.
#[derive(Clone)]
struct Printed;

impl UsageSink for Printed {
    fn record(&self, event: UsageEvent) {
        let (outcome, reason) = (event.outcome.as_str(), event.code.as_deref().unwrap_or("-"));
        println!("  {outcome:9} {reason:18} units {}", event.units);
    }
}

async fn hello<B>(_: Request<B>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new("hello".into()))
}

/// A store with one key that has one request a day.
fn store(key: &SecretKey) -> Result<MemoryStore, BoxError> {
    let store = MemoryStore::new();
    store.insert(key, KeyRecord::new(KeyId::from("alice"), DailyLimit::new(1)?))?;
    Ok(store)
}

/// Two requests with the key, and one with another.
async fn ask<S, B>(service: S, key: &SecretKey) -> Result<(), BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Error: std::fmt::Debug>,
{
    for key in [key.expose(), key.expose(), "trial-key-of-nobody"] {
        let request = Request::get("/").header("x-api-key", key).body(Body::default())?;
        let Ok(answer) = service.clone().oneshot(request).await;
        // The event comes with the body's end.
        drop(answer.into_body().collect().await);
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let key = SecretKey::parse("trial-key-manual-123")?;

    println!("usage, auth, quota: every request is heard of");
    let all = store(&key)?;
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(Printed))
        .layer(TrialKeyAuthLayer::new(all.clone()))
        .layer(DailyQuotaLayer::new(all))
        .service(service_fn(hello));
    ask(service, &key).await?;

    println!("auth, usage, quota: those of known keys");
    let known = store(&key)?;
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(known.clone()))
        .layer(UsageRecorderLayer::new(Printed))
        .layer(DailyQuotaLayer::new(known))
        .service(service_fn(hello));
    ask(service, &key).await?;

    println!("auth, quota, usage: those that were admitted");
    let admitted = store(&key)?;
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(admitted.clone()))
        .layer(DailyQuotaLayer::new(admitted))
        .layer(UsageRecorderLayer::new(Printed))
        .service(service_fn(hello));
    ask(service, &key).await
}
