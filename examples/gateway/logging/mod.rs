//! The log and the panic hook.
//!
//! Both formats are written here and not by `tracing_subscriber`, so that the line of each request, which are most of
//! the log, passes through no event, and other lines name their request without a span for each.

mod background_writer;
mod current;
mod line;

use std::{
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
    thread,
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt},
    registry,
    util::SubscriberInitExt,
};

use crate::{catch_panic::panic_message, settings::LogSettings};

pub(crate) use background_writer::BackgroundWriter;
pub(crate) use current::enter;
pub(crate) use line::Line;

use line::Format;

/// Where the log goes, and how it is written. Clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    stderr: BackgroundWriter,
    format: Format,
}

impl Log {
    /// Starts the log of this process, which has panics, too, on standard error.
    pub(crate) fn start(settings: LogSettings, stderr: BackgroundWriter) -> Self {
        let LogSettings { filter, is_json } = settings;
        let format = match is_json {
            true => Format::Json,
            false if io::stderr().is_terminal() => Format::ColoredText,
            false => Format::Text,
        };
        let log = Self { stderr, format };
        let of_panics = log.clone();
        // The default hook writes to standard error itself and may block there. `tracing` is not used, as a
        // second panic within a hook aborts the process.
        panic::set_hook(Box::new(move |panic| of_panics.report_panic(panic)));
        registry().with(EnvFilter::new(filter)).with(log.clone()).init();
        log
    }

    /// Begins a line at this level.
    pub(crate) fn line(&self, level: Level, message: &str) -> Line {
        Line::new(self.format, level, Some(message))
    }

    /// Writes a line.
    pub(crate) fn write(&self, line: Line) {
        self.stderr.push(&line.finish());
    }

    /// Writes a line with the id of the request that this thread is working on.
    fn write_with_request(&self, mut line: Line) {
        let id = current::request_id();
        line.option("request_id", id.as_ref().and_then(|id| id.to_str().ok()));
        self.write(line);
    }

    fn report_panic(&self, panic: &PanicHookInfo<'_>) {
        let mut line = self.line(Level::ERROR, "a thread panicked");
        line.text("thread", thread::current().name().unwrap_or("unnamed"));
        if let Some(location) = panic.location() {
            line.display("location", format_args!("{location}"));
        }
        line.text("reason", panic_message(panic.payload()));
        self.write_with_request(line);
        // The process may not live for long.
        self.stderr.hurry();
    }
}

/// Writes `tracing`'s events.
impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::new(self.format, *event.metadata().level(), None);
        event.record(&mut line);
        self.write_with_request(line);
    }
}
