//! The admin API.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod api;
mod attempts;
mod claims;
mod cross_site;
mod import_export;
mod input;
mod lost_responses;
mod status;
mod statuses;
mod usage;
