use std::io::{self, IsTerminal};

use tracing_subscriber::fmt;

use crate::settings::LogSettings;

/// Sends the log to standard error.
pub(crate) fn start(settings: LogSettings) {
    let log = fmt()
        .with_env_filter(settings.filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    if settings.json {
        log.json().flatten_event(true).init();
    } else {
        log.init();
    }
}
