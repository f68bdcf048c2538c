//! One line of the log.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
    time::SystemTime,
};

use jiff::Timestamp;
use serde::Serialize;
use tracing::{
    Level,
    field::{Field, Visit},
};

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    /// Text for a terminal.
    ColoredText,
    Json,
}

/// A line that is being written: a time, a level and a message, and then fields.
pub(crate) struct Line {
    text: Vec<u8>,
    format: Format,
}

impl Line {
    /// Begins a line. One that a `tracing` event is to fill in has no message yet.
    pub(crate) fn new(format: Format, level: Level, message: Option<&str>) -> Self {
        let mut line = Self { text: Vec::with_capacity(512), format };
        // A clock that is out of range must not make the panic hook panic.
        let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        // Writing to memory does not fail.
        let _ = match format {
            Format::Text => write!(line.text, "{now:.6} {level:>5}"),
            Format::ColoredText => {
                let color = color(level);
                write!(line.text, "\x1b[2m{now:.6}\x1b[0m \x1b[{color}m{level:>5}\x1b[0m")
            }
            Format::Json => write!(line.text, r#"{{"timestamp":"{now:.6}","level":"{level}""#),
        };
        if let Some(message) = message {
            line.message(message);
        }
        line
    }

    fn message(&mut self, message: &str) {
        match self.format {
            Format::Json => self.field("message", message),
            _ => {
                self.text.push(b' ');
                self.push_escaped(format_args!("{message}"));
            }
        }
    }

    /// Adds text, quoted and with escapes.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        match self.format {
            Format::Json => self.field(name, value),
            _ => self.display(name, format_args!("{value:?}")),
        }
    }

    /// Adds a number, a boolean, or text without control characters, quoted.
    pub(crate) fn field(&mut self, name: &str, value: impl Serialize) {
        self.name(name);
        // Such a value is always written.
        let _ = serde_json::to_writer(&mut self.text, &value);
    }

    /// Adds a field if it has a value.
    pub(crate) fn option(&mut self, name: &str, value: Option<impl Serialize>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// Adds a field whose value is quoted in JSON only.
    pub(crate) fn display(&mut self, name: &str, value: fmt::Arguments<'_>) {
        match self.format {
            Format::Json => self.field(name, value.to_string()),
            _ => {
                self.name(name);
                self.push_escaped(value);
            }
        }
    }

    fn name(&mut self, name: &str) {
        let (before, after) = match self.format {
            Format::Json => (&b",\""[..], &b"\":"[..]),
            _ => (&b" "[..], &b"="[..]),
        };
        self.text.extend_from_slice(before);
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(after);
    }

    /// Adds text without what would end the line or control a terminal.
    fn push_escaped(&mut self, text: fmt::Arguments<'_>) {
        let _ = Escaping(&mut self.text).write_fmt(text);
    }

    /// Returns the line with its end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.format == Format::Json {
            self.text.push(b'}');
        }
        self.text.push(b'\n');
        self.text
    }
}

/// Adds the fields of a `tracing` event, without those by which the `log` crate's records say where they are from.
impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() != "log.line" {
            self.field(field.name(), value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message(value),
            name if name.starts_with("log.") => {}
            name => self.text(name, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message(&format!("{value:?}")),
            name if name.starts_with("log.") => {}
            name => self.display(name, format_args!("{value:?}")),
        }
    }
}

/// Writes text, and control characters as Rust's escapes.
struct Escaping<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            self.0.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        for part in text.split_inclusive(char::is_control) {
            match part.char_indices().next_back() {
                Some((start, control)) if control.is_control() => {
                    self.0.extend_from_slice(&part.as_bytes()[..start]);
                    let _ = write!(self.0, "{}", control.escape_default());
                }
                _ => self.0.extend_from_slice(part.as_bytes()),
            }
        }
        Ok(())
    }
}

fn color(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: Format) -> String {
        let mut line = Line::new(format, Level::WARN, Some("it broke:\n\x1b[2Jsaid \"why\""));
        line.field("id", "a\"b");
        line.field("bytes", 7_u64);
        line.option("tokens", None::<u32>);
        line.display("ip", format_args!("{}", std::net::Ipv4Addr::LOCALHOST));
        line.field("milliseconds", 1.5);
        String::from_utf8(line.finish()).unwrap()
    }

    #[test]
    fn text_stays_on_its_line_and_controls_no_terminal() {
        let line = line(Format::Text);
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.parse::<Timestamp>().is_ok() && time.len() == 27, "{time}");
        let expected = " WARN it broke:\\n\\u{1b}[2Jsaid \"why\" id=\"a\\\"b\" bytes=7 ip=127.0.0.1 milliseconds=1.5\n";
        assert_eq!(rest, expected);
    }

    #[test]
    fn json_is_an_object_on_one_line() {
        let line = line(Format::Json);
        assert_eq!(line.matches('\n').count(), 1);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["message"], "it broke:\n\x1b[2Jsaid \"why\"");
        assert_eq!((&line["level"], &line["id"]), (&"WARN".into(), &"a\"b".into()));
        assert_eq!((&line["bytes"], &line["milliseconds"]), (&7.into(), &1.5.into()));
        assert_eq!((line.get("tokens"), &line["ip"]), (None, &"127.0.0.1".into()));
    }
}
