//! Real clients in front of the gateway: SDKs, command line tools, browsers, reverse proxies and schemathesis. Most
//! of these tests need programs that `.ci/run` installs; `scripts/` holds what runs in them.

#[path = "../common/mod.rs"]
mod common;

mod admin_page;
mod balancers;
mod cross_origin;
mod http;
mod openai;
mod openai_own_tests;
mod operator_day;
mod schemathesis;
mod settings;
mod usage_page;
mod user_procedure;
