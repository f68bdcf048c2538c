//! The layers in other stacks than the gateway: each alone, in any order, and as the examples use them.

#[path = "../common/seed.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod seed;
#[path = "../common/zone.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod zone;

mod alone;
mod axum_app;
mod cached_get;
mod custom_store;
mod custom_upstream;
mod fair_share;
mod in_flight;
mod policies;
mod rate;
mod several_quotas;
mod shadow_metric;
mod stream_usage;
