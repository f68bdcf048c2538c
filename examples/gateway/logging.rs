//! The log and the panic hook.

use std::{
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
    thread,
};

use tracing_subscriber::{
    EnvFilter,
    fmt::{
        format::Writer,
        time::{FormatTime, SystemTime},
    },
};

use crate::{
    background_writer::BackgroundWriter, catch_panic::panic_message, settings::LogSettings,
};

/// Writes the log, and panics, to standard error.
pub(crate) fn start(settings: LogSettings, stderr: BackgroundWriter) {
    let LogSettings { filter, is_json } = settings;
    set_panic_hook(stderr.clone(), is_json);
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(move || stderr.clone())
        .with_ansi(io::stderr().is_terminal())
        .log_internal_errors(false)
        .with_target(false);
    if is_json {
        log.json().flatten_event(true).init();
    } else {
        log.init();
    }
}

/// Replaces the default hook, which writes to standard error itself and may block there. `tracing` is not
/// used, as a second panic within a hook aborts the process.
fn set_panic_hook(stderr: BackgroundWriter, is_json: bool) {
    panic::set_hook(Box::new(move |panic| stderr.push(panic_line(panic, is_json).as_bytes())));
}

fn panic_line(panic: &PanicHookInfo<'_>, is_json: bool) -> String {
    let mut timestamp = String::new();
    // Stays empty if the clock cannot be formatted.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let reason = panic_message(panic.payload());
    if is_json {
        let line = serde_json::json!({
            "timestamp": timestamp, "level": "ERROR", "message": "a thread panicked",
            "thread": thread, "location": location, "reason": reason,
        });
        format!("{line}\n")
    } else {
        format!(
            "{timestamp} ERROR a thread panicked thread={thread:?} location={location} reason={reason:?}\n"
        )
    }
}
