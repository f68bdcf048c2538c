use std::time::{SystemTime, UNIX_EPOCH};

/// The time zone in which it is about noon, so that no day turns while a test runs.
pub(crate) fn noon_zone() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let hour = (since.as_secs() / 3600 % 24) as i64;
    match hour - 12 {
        0 => "UTC".to_owned(),
        // The sign is that of POSIX: west is positive.
        west => format!("Etc/GMT{west:+}"),
    }
}
