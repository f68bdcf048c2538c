//! What the gateway's program does beside serving.

pub(crate) mod healthcheck;
