use std::time::SystemTime;

use crate::clock::Calendar;

/// What whoever runs the service tells of it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) started_at: SystemTime,
    pub(super) calendar: Calendar,
    pub(super) settings: Vec<(String, Option<String>)>,
}

impl Facts {
    pub(super) fn new() -> Self {
        let (started_at, calendar) = (SystemTime::now(), Calendar::utc());
        Self { started_at, calendar, settings: Vec::new() }
    }
}
