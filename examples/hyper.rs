//! The three layers around a plain service, on the crate's server over hyper.
//!
//! Run `cargo run --example hyper`, then the command that it prints.

use std::{convert::Infallible, error::Error};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{ServiceBuilder, service_fn};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    key::{KeyId, KeyRecord, Limit, SecretKey},
    quota::DailyQuotaLayer,
    server::{self, Limits},
    store::memory::MemoryStore,
    usage::UsageRecorderLayer,
};

async fn hello<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello\n")))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = MemoryStore::new();
    let key = SecretKey::parse("trial-alice-key-123")?;
    store.insert(&key, KeyRecord::new(KeyId::from("alice"), Limit::Units(3)))?;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    println!(
        "three requests a day: curl -i -H 'Authorization: Bearer {}' http://{address}/",
        key.expose()
    );

    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(UsageRecorderLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store))
        .service(service_fn(hello));
    server::serve(listener, service, Limits::new()).await;
    Ok(())
}
