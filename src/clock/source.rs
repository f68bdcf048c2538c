use std::{fmt, sync::Arc, time::SystemTime};

use http::Extensions;

/// Source of the current time, so that tests can control it.
pub trait Clock: Send + Sync + 'static {
    /// Returns the current time.
    fn now(&self) -> SystemTime;
}

/// The system clock, [`SystemTime::now`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> SystemTime {
        (**self).now()
    }
}

/// In a request's extensions: when it was received. The first layer that needs the time reads the
/// clock and leaves it here, so charge, headers and usage event agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedAt(pub SystemTime);

impl ReceivedAt {
    /// The request's time, read from `clock` if no layer has done so before.
    pub(crate) fn of(extensions: &mut Extensions, clock: &dyn Clock) -> SystemTime {
        extensions.get_or_insert_with(|| ReceivedAt(clock.now())).0
    }
}

impl fmt::Debug for dyn Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
