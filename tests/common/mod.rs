//! What the integration tests share: the gateway as a process, a scripted upstream, a client.
#![allow(dead_code, unused_imports, reason = "each test uses its part")]

pub(crate) mod admin;
mod client;
pub(crate) mod failing_store;
mod figures;
mod gateway;
mod machine;
pub(crate) mod memory_gateway;
mod port;
#[cfg(unix)]
pub(crate) mod postgres;
mod program;
mod provider;
mod rogue;
mod seed;
mod spread;
mod stand_in;
pub(crate) mod systemd;
mod upstream;
pub(crate) mod volume;
mod wire;
mod zone;

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

pub(crate) use client::{Client, CollectedResponse};
pub(crate) use figures::Figures;
pub(crate) use gateway::{
    ADMIN_TOKEN, Gateway, GatewayCommand, end, gateway_binary, set_for_tests,
};
pub(crate) use machine::Machine;
pub(crate) use port::free_port;
pub(crate) use program::Program;
pub(crate) use provider::PROVIDER_SAYS;
pub(crate) use rogue::Rogue;
pub(crate) use seed::Random;
pub(crate) use spread::Spread;
pub(crate) use stand_in::StandIns;
pub(crate) use upstream::{Call, StubBody, Upstream, chat_json, full, json_response, streaming};
pub(crate) use wire::{Wire, Wire2};
pub(crate) use zone::{memory_store, noon_calendar, noon_zone, wait_past_midnight};

/// Where `.ci/run` has installed a client, if it has.
pub(crate) fn installed(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients").join(path);
    path.exists().then_some(path)
}

/// A command that runs a script of `tests/clients/scripts` with Node.
pub(crate) fn node(script: &str) -> Command {
    let mut node = Command::new("node");
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/scripts/").to_owned() + script);
    if let Some(modules) = installed("node/node_modules") {
        node.env("NODE_PATH", modules);
    }
    node
}

/// A command that runs a script of `tests/clients/scripts` with Python.
pub(crate) fn python(script: &str) -> Command {
    let python = installed("python/bin/python").unwrap_or_else(|| "python3".into());
    let mut python = Command::new(python);
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/scripts/").to_owned() + script);
    python
}

/// Time limit for each step of a test, far above what a step takes on a slow machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
///
/// # Panics
///
/// If it does not hold within [`DEADLINE`].
pub(crate) async fn eventually<F>(what: &str, mut condition: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let until = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < until, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
