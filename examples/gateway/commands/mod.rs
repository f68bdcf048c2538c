//! What the gateway's program does beside serving.

pub(crate) mod backup;
pub(crate) mod healthcheck;
pub(crate) mod progress;
