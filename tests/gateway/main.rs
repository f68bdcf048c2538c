//! The gateway as its operators run it: settings, commands, signals, logs, metrics and deployments.

#[path = "../common/mod.rs"]
mod common;

mod canaries;
mod client_addresses;
mod commands;
mod compose;
mod home_page;
mod image;
mod kubernetes;
mod log_trouble;
mod metrics;
mod migrate;
mod nodes;
mod operations;
mod postgres;
mod request_ids;
mod request_log;
mod settings;
mod signals;
mod systemd;
