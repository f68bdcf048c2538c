//! What the gateway does on its connections: to clients, to the upstream, and when either of them misbehaves.

#[path = "../common/mod.rs"]
mod common;

mod api_paths;
mod connections;
mod credentials;
mod drain;
mod early_responses;
mod error_table;
mod fair_share;
mod head_requests;
mod hostile_clients;
mod proxy_conformance;
mod rejected_sponsor;
mod rejections;
mod stream_usage;
mod transparency;
mod upstream_connections;
mod upstream_faults;
mod upstream_network;
mod what_travels;
