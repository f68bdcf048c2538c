//! Tests that need a process of their own: they raise its limits, or replace its log and its panic hook.

#[path = "../common/mod.rs"]
mod common;

mod memory;
mod panicking_log;
