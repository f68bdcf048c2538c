use std::{
    sync::OnceLock,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tower_quota::{
    clock::{Calendar, SystemClock},
    store::memory::MemoryStore,
};

/// The time zone in which it was noon when it was first needed, so that no day turns while tests run.
pub(crate) fn noon_zone() -> &'static str {
    static ZONE: OnceLock<String> = OnceLock::new();
    ZONE.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let hour = (since.as_secs() / 3600 % 24) as i64;
        match hour - 12 {
            0 => "UTC".to_owned(),
            // The sign is that of POSIX: west is positive.
            west => format!("Etc/GMT{west:+}"),
        }
    })
}

/// The calendar of [`noon_zone`].
pub(crate) fn noon_calendar() -> Calendar {
    Calendar::new(noon_zone()).unwrap()
}

/// An empty store in [`noon_zone`].
pub(crate) fn memory_store() -> MemoryStore {
    MemoryStore::with_time(noon_calendar(), SystemClock)
}

/// Waits until no day ends within `time` in the zones of the gateways that documents start.
pub(crate) fn wait_past_midnight(time: Duration) {
    for zone in ["UTC", "Asia/Shanghai"] {
        let now = SystemTime::now();
        let left = Calendar::new(zone).unwrap().window(now).end.duration_since(now).unwrap();
        if left < time {
            thread::sleep(left + Duration::from_secs(1));
        }
    }
}
