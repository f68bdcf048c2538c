//! Rejected requests without a known key, which the usage ledger does not hold.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use http::Method;

/// Maximum number of requests in the log.
const MAX_REJECTIONS: usize = 1000;
/// Maximum number of characters of a credential that are shown.
const MAX_SHOWN: usize = 10;
/// Minimum number of characters of a credential that stay hidden.
const MIN_HIDDEN: usize = 8;

/// The last 1,000 rejected requests whose key is not known, in memory. Clones share them.
///
/// A request log adds them;
/// [`AdminService::rejections`](super::AdminService::rejections) lets operators find them by the
/// request id of the response.
#[derive(Clone, Default)]
pub struct RejectionLog(Arc<Mutex<VecDeque<RejectedRequest>>>);

/// A request that was rejected and whose key is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRequest {
    /// Time of receipt.
    pub at: SystemTime,
    /// `x-request-id` of the response.
    pub request_id: String,
    /// The request's method.
    pub method: Method,
    /// The request's path, escaped for logs.
    pub path: String,
    /// The response's status.
    pub status: u16,
    /// The rejection's code.
    pub code: Cow<'static, str>,
    /// The beginning of the credential that was presented, see [`masked_prefix`].
    pub key: Option<String>,
    /// The client's address, if it is known and may be stored.
    pub client_addr: Option<IpAddr>,
}

impl RejectionLog {
    /// Creates an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a request. A full log drops its oldest one.
    pub fn record(&self, request: RejectedRequest) {
        let mut requests = self.requests();
        requests.truncate(MAX_REJECTIONS - 1);
        requests.push_front(request);
    }

    /// Returns the requests with this id, latest first.
    pub(super) fn find(&self, request_id: &str) -> Vec<RejectedRequest> {
        let requests = self.requests();
        requests.iter().filter(|request| request.request_id == request_id).cloned().collect()
    }

    fn requests(&self) -> MutexGuard<'_, VecDeque<RejectedRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RejectionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectionLog").field("requests", &self.requests().len()).finish()
    }
}

/// Returns the part of an unknown credential that may be shown: at most its first 10 characters, and
/// few enough that at least 8, and as many as are shown, stay hidden.
///
/// ```
/// use tower_quota::admin::masked_prefix;
///
/// assert_eq!(masked_prefix(b"trial-alice-20261122-x7QpFt3mZk"), "trial-alic…");
/// assert_eq!(masked_prefix(b"12345678"), "…");
/// ```
pub fn masked_prefix(credential: &[u8]) -> String {
    let shown = (credential.len().saturating_sub(MIN_HIDDEN) / 2).min(MAX_SHOWN);
    let plain = credential[..shown].iter().take_while(|byte| byte.is_ascii_graphic());
    plain.map(|byte| char::from(*byte)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str) -> RejectedRequest {
        RejectedRequest {
            at: SystemTime::UNIX_EPOCH,
            request_id: id.to_owned(),
            method: Method::GET,
            path: "/".into(),
            status: 404,
            code: "not_found".into(),
            key: None,
            client_addr: None,
        }
    }

    #[test]
    fn the_last_thousand_are_found_by_their_id() {
        let log = RejectionLog::new();
        (0..1500).for_each(|number| log.record(request(&number.to_string())));
        assert_eq!(log.requests().len(), 1000);
        assert!(log.find("499").is_empty());
        assert_eq!(log.find("500"), [request("500")]);
        let later = RejectedRequest { status: 401, ..request("500") };
        log.record(later.clone());
        assert_eq!(log.find("500"), [later], "the earlier one was the oldest and was dropped");
    }

    #[test]
    fn most_of_a_credential_stays_hidden() {
        for (credential, shown) in [
            ("", "…"),
            ("123456789", "…"),
            ("1234567890", "1…"),
            ("correct-horse", "co…"),
            ("sk-proj-0123456789abcdef0123456789", "sk-proj-01…"),
            ("ab cd\u{7f}efghijklmnop", "ab…"),
            ("密密密密密密密密密密", "…"),
        ] {
            assert_eq!(masked_prefix(credential.as_bytes()), shown, "{credential}");
        }
    }
}
