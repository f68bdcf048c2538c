//! What the integration tests share: the gateway as a process, a scripted upstream, a client.
#![allow(dead_code, unused_imports, reason = "each test uses its part")]

mod client;
mod gateway;
mod upstream;

use std::{
    future::Future,
    time::{Duration, Instant},
};

pub(crate) use client::{Answer, Client};
pub(crate) use gateway::{ADMIN_TOKEN, Gateway, GatewayCommand};
pub(crate) use upstream::{Call, StubBody, Upstream, chat_json, full, json_answer, streaming};

/// How long anything in a test may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
///
/// # Panics
///
/// When it does not within [`DEADLINE`].
pub(crate) async fn eventually<F>(what: &str, mut condition: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let until = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < until, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
