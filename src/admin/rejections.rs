//! Rejected requests without a known key, which the usage ledger does not hold.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use http::{HeaderValue, Method};

use crate::store::plain_path;

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
pub struct RejectionLog(Arc<Mutex<VecDeque<RejectionEntry>>>);

/// A request that was rejected and whose key is not known. It holds no secret: of its path the plain words are
/// kept, and of its credential the beginning.
///
/// ```
/// use std::time::SystemTime;
/// use http::{HeaderValue, Method};
/// use tower_quota::admin::{RejectionEntry, RejectionLog};
///
/// let credential = HeaderValue::from_static("Bearer trial-alice-20261122-x7QpFt3mZk");
/// let entry = RejectionEntry::new(SystemTime::now(), "5b1c", 401)
///     .request(Method::POST, "/v1/chat/completions")
///     .code("invalid_api_key")
///     .credential(&credential);
/// RejectionLog::new().record(entry);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectionEntry {
    /// Time of receipt.
    pub(super) at: SystemTime,
    /// `x-request-id` of the response.
    pub(super) request_id: String,
    /// The request's method.
    pub(super) method: Method,
    /// The plain words of the request's path.
    pub(super) path: String,
    /// The response's status.
    pub(super) status: u16,
    /// The rejection's code.
    pub(super) code: Cow<'static, str>,
    /// The beginning of the credential that was presented.
    pub(super) key: Option<String>,
    /// The client's address, if it is known and may be stored.
    pub(super) client_addr: Option<IpAddr>,
}

impl RejectionEntry {
    /// Creates the entry of a request that was received at `at`, with the `x-request-id` and the status of its
    /// response.
    pub fn new(at: SystemTime, request_id: impl Into<String>, status: u16) -> Self {
        Self {
            at,
            request_id: request_id.into(),
            method: Method::default(),
            path: String::new(),
            status,
            code: Cow::default(),
            key: None,
            client_addr: None,
        }
    }

    /// Sets method and path of the request.
    #[must_use]
    pub fn request(self, method: Method, path: &str) -> Self {
        Self { method, path: plain_path(path), ..self }
    }

    /// Sets the code of the rejection.
    #[must_use]
    pub fn code(self, code: impl Into<Cow<'static, str>>) -> Self {
        Self { code: code.into(), ..self }
    }

    /// Sets the header with the credential that was presented, with or without a scheme. At most the first 10
    /// characters of the credential are kept, and few enough that at least 8, and as many as are kept, stay
    /// hidden.
    #[must_use]
    pub fn credential<'a>(self, header: impl Into<Option<&'a HeaderValue>>) -> Self {
        let credential = header.into().map(|header| {
            let mut words = header.as_bytes().trim_ascii().rsplit(u8::is_ascii_whitespace);
            masked_prefix(words.next().unwrap_or_default())
        });
        Self { key: credential, ..self }
    }

    /// Sets the client's address, if it may be stored.
    #[must_use]
    pub fn client_addr(self, addr: impl Into<Option<IpAddr>>) -> Self {
        Self { client_addr: addr.into(), ..self }
    }
}

impl RejectionLog {
    /// Creates an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a request. A full log drops its oldest one.
    pub fn record(&self, request: RejectionEntry) {
        let mut requests = self.requests();
        requests.truncate(MAX_REJECTIONS - 1);
        requests.push_front(request);
    }

    /// Returns the requests with this id, latest first.
    pub(super) fn find(&self, request_id: &str) -> Vec<RejectionEntry> {
        let requests = self.requests();
        requests.iter().filter(|request| request.request_id == request_id).cloned().collect()
    }

    fn requests(&self) -> MutexGuard<'_, VecDeque<RejectionEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RejectionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectionLog").field("requests", &self.requests().len()).finish()
    }
}

/// Returns the part of an unknown credential that may be shown.
fn masked_prefix(credential: &[u8]) -> String {
    let shown = (credential.len().saturating_sub(MIN_HIDDEN) / 2).min(MAX_SHOWN);
    let plain = credential[..shown].iter().take_while(|byte| byte.is_ascii_graphic());
    plain.map(|byte| char::from(*byte)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str) -> RejectionEntry {
        RejectionEntry::new(SystemTime::UNIX_EPOCH, id, 404)
    }

    #[test]
    fn the_last_thousand_are_found_by_their_id() {
        let log = RejectionLog::new();
        (0..1500).for_each(|number| log.record(request(&number.to_string())));
        assert_eq!(log.requests().len(), 1000);
        assert!(log.find("499").is_empty());
        assert_eq!(log.find("500"), [request("500")]);
        let later = RejectionEntry { status: 401, ..request("500") };
        log.record(later.clone());
        assert_eq!(log.find("500"), [later], "the earlier one was the oldest and was dropped");
    }

    #[test]
    fn most_of_a_credential_stays_hidden_and_no_key_is_in_the_path() {
        for (credential, shown) in [
            ("", "…"),
            ("123456789", "…"),
            ("1234567890", "1…"),
            ("correct-horse", "co…"),
            ("sk-proj-0123456789abcdef0123456789", "sk-proj-01…"),
            ("Bearer  correct-horse ", "co…"),
            ("密密密密密密密密密密", "…"),
        ] {
            let header = HeaderValue::from_str(credential).unwrap();
            assert_eq!(
                request("1").credential(&header).key.as_deref(),
                Some(shown),
                "{credential}"
            );
        }
        let path = request("1").request(Method::GET, "/v1/trial-alice-20261122-x7Qp").path;
        assert_eq!(path, "/v1/…");
    }
}
