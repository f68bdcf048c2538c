use std::time::SystemTime;

use crate::clock::Calendar;

/// The process as `GET /status` shows it.
#[derive(Clone, Debug)]
pub(super) struct ProcessInfo {
    pub(super) started_at: SystemTime,
    pub(super) calendar: Calendar,
    /// Names and values; a secret's value is masked, `None` means not set.
    pub(super) settings: Vec<(String, Option<String>)>,
}

impl ProcessInfo {
    pub(super) fn new() -> Self {
        let (started_at, calendar) = (SystemTime::now(), Calendar::utc());
        Self { started_at, calendar, settings: Vec::new() }
    }
}
