//! An application that uses the crate: what composes with it, as its users write it.
#![cfg(test)]

mod async_store;
mod auth;
mod bodies;
mod cached_keys;
mod contract;
mod errors;
mod formats;
mod grpc;
mod quotas;
mod rejections;
mod requests;
mod reservations;
mod subjects;
mod tenants;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::body::Body;
use http::{Request, Response};
use tower_quota::{
    key::{KeyId, KeyRecord, Limit, SecretKey},
    store::{UsageEvent, UsageSink, memory::MemoryStore},
};

const KEY: &str = "trial-key-manual-123";

/// The events of the requests that have ended.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<UsageEvent>>>);

impl UsageSink for Events {
    fn record(&self, event: UsageEvent) {
        self.0.lock().unwrap().push(event);
    }
}

/// A store with one key that has this limit.
fn store(limit: u64) -> MemoryStore {
    let store = MemoryStore::new();
    let record = KeyRecord::new(KeyId::from("alice"), Limit::Units(limit));
    store.insert(&SecretKey::parse(KEY).unwrap(), record).unwrap();
    store
}

fn request(path: &str) -> Request<Body> {
    let request = Request::get(path).header("authorization", format!("Bearer {KEY}"));
    request.body(Body::empty()).unwrap()
}

async fn hello(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::from("hello")))
}
