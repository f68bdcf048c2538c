//! Time: an injected [`Clock`], the [`Day`] a unit belongs to, and the [`Calendar`] that says when
//! the day turns in the quota's time zone.

mod calendar;
mod day;
mod source;
mod text;

pub use calendar::{Calendar, UnknownTimeZone, Window};
pub use day::{Day, InvalidDay};
pub use source::{Clock, ReceivedAt, SystemClock};
pub use text::parse_timestamp;
pub(crate) use text::rfc3339;
