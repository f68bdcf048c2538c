//! Time: an injectable [`Clock`], the [`Period`] in which a unit is counted, and the [`Calendar`] that
//! determines when a [`Day`] or a longer period begins in the quota's time zone.

mod calendar;
mod day;
mod period;
mod source;
mod text;

pub use calendar::{Calendar, UnknownTimeZone, Window};
pub use day::{Day, InvalidDay};
pub use period::Period;
pub use source::{Clock, SystemClock};
#[cfg(feature = "serde")]
pub(crate) use text::{from_unix_millis, unix_millis};
pub use text::{parse_timestamp, rfc3339};
