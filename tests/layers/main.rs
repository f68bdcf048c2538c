//! The layers in other stacks than the gateway: each alone, in any order, and as the examples use them.

mod alone;
mod axum_app;
mod cached_get;
mod custom_upstream;
mod stream_usage;
