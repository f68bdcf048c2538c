mod base;
mod path;

use std::fmt;

use http::{
    HeaderMap, HeaderValue, Method, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery},
};

use crate::{
    error::{
        Rejection,
        catalog::{self, ErrorCode},
    },
    request::RequestContext,
};

pub use base::{InvalidBase, UpstreamBase};
use path::PathError;

/// Maximum length of a method, in bytes.
const MAX_METHOD_LENGTH: usize = 32;

/// A validated path and query, which mean to this server what they mean to any other that reads the
/// same bytes.
///
/// Targets are validated here only. Routers and the proxy both use it, so a spelling that one of them
/// rejects cannot slip past the other. A router calls [`check_once`](Self::check_once), so that the
/// proxy need not validate again.
///
/// ```
/// use http::Request;
/// use tower_quota::proxy::RequestTarget;
///
/// let check = |uri: &str| {
///     let request = Request::get(uri).header("host", "gateway").body(()).unwrap();
///     RequestTarget::check(&request.into_parts().0)
/// };
/// assert_eq!(check("/v1/models/a%2Fb?x=1").unwrap().path(), "/v1/models/a%2Fb");
/// assert!(check("/v1/%252e%252e/admin").is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RequestTarget(PathAndQuery);

/// Does not show the target, as its path and query may hold a key.
impl fmt::Debug for RequestTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestTarget(…)")
    }
}

/// The error of an invalid request target.
///
/// It converts into a [`Rejection`]: 405 for `TRACE`, 414 for a target that is too long for the
/// upstream, else 400, with `Connection: close` if the request's framing is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetError {
    reason: Reason,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Trace,
    Preface,
    MethodLength,
    Framing,
    Host(HostError),
    Form,
    TargetLength,
    Path(PathError),
}

impl RequestTarget {
    /// Validates method, framing, `Host` or `:authority`, and path of a request.
    ///
    /// # Errors
    ///
    /// These are rejected:
    ///
    /// - the methods `TRACE`, `CONNECT` and `PRI`, and methods longer than 32 bytes;
    /// - `Content-Length` next to `Transfer-Encoding`, twice, or other than digits;
    /// - on HTTP/1.1 a missing `Host`; on any version a repeated or malformed one, or one that
    ///   contradicts `:authority` (RFC 9112, section 3.2; RFC 9113, section 8.3.1);
    /// - on HTTP/1 any form but the origin form;
    /// - paths with an empty or dot segment, backslash, control character or invalid escape, in any
    ///   percent-encoding.
    ///
    /// A `%2F` inside a segment stays as it is. The query is not validated.
    pub fn check(head: &Parts) -> Result<Self, TargetError> {
        let error = |reason| TargetError { reason, version: head.version };
        check_method(&head.method).map_err(error)?;
        check_framing(&head.headers).map_err(error)?;
        check_host(head).map_err(|host| error(Reason::Host(host)))?;
        check_form(head).map_err(error)?;
        let target = head.uri.path_and_query();
        let target = target.ok_or(error(Reason::Form))?;
        path::check(target.path()).map_err(|path| error(Reason::Path(path)))?;
        Ok(Self(target.clone()))
    }

    /// Validates a request as [`check`](Self::check) does, and keeps the target in the request's
    /// [`RequestContext`]. The first `UpstreamProxyService` that gets the request does not validate the same target again.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn check_once(head: &mut Parts) -> Result<Self, TargetError> {
        let target = Self::check(head)?;
        RequestContext::of(&mut head.extensions).set_validated_target(target.0.clone());
        Ok(target)
    }

    /// Takes the target that [`check_once`](Self::check_once) has kept, if it is still the
    /// request's; else [`check`](Self::check)s the request.
    pub(super) fn take(head: &Parts) -> Result<Self, TargetError> {
        let validated = head.extensions.get().and_then(RequestContext::take_validated_target);
        match validated {
            Some(target) if head.uri.path_and_query() == Some(&target) => Ok(Self(target)),
            _ => Self::check(head),
        }
    }

    /// Returns the path as it was sent, percent-encoding included. It starts with `/`.
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// Returns path and query as they were sent.
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.0
    }
}

fn check_method(method: &Method) -> Result<(), Reason> {
    if *method == Method::TRACE {
        Err(Reason::Trace)
    } else if *method == Method::CONNECT {
        // The target of `CONNECT` is an authority, never a path (RFC 9110, section 9.3.6).
        Err(Reason::Form)
    } else if method.as_str() == "PRI" {
        Err(Reason::Preface)
    } else if method.as_str().len() > MAX_METHOD_LENGTH {
        Err(Reason::MethodLength)
    } else {
        Ok(())
    }
}

/// HTTP/2 does not depend on `Content-Length`, but an HTTP/1 upstream does.
fn check_framing(headers: &HeaderMap) -> Result<(), Reason> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(());
    };
    let is_number = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    let is_only_one = lengths.next().is_none() && !headers.contains_key(header::TRANSFER_ENCODING);
    if is_number && is_only_one { Ok(()) } else { Err(Reason::Framing) }
}

fn check_form(head: &Parts) -> Result<(), Reason> {
    let is_absolute = head.uri.scheme().is_some() || head.uri.authority().is_some();
    let scheme = head.uri.scheme_str().unwrap_or("http");
    let is_allowed = match is_http1(head.version) {
        true => !is_absolute,
        false => matches!(scheme, "http" | "https"),
    };
    if is_allowed { Ok(()) } else { Err(Reason::Form) }
}

impl TargetError {
    /// The error of a target that is too long with the upstream's base path.
    pub(super) fn too_long() -> Self {
        Self { reason: Reason::TargetLength, version: Version::HTTP_2 }
    }

    /// Returns the stable name of this error.
    pub fn code(self) -> &'static str {
        self.error_code().code()
    }

    fn error_code(self) -> ErrorCode {
        match self.reason {
            Reason::Trace => catalog::METHOD_NOT_ALLOWED,
            Reason::MethodLength | Reason::Preface => catalog::INVALID_METHOD,
            Reason::Framing => catalog::AMBIGUOUS_FRAMING,
            Reason::Host(_) => catalog::INVALID_HOST,
            Reason::Form => catalog::INVALID_TARGET,
            Reason::TargetLength => catalog::URI_TOO_LONG,
            Reason::Path(_) => catalog::INVALID_PATH,
        }
    }

    fn message(self) -> &'static str {
        match self.reason {
            Reason::Trace => "TRACE is not served here.",
            Reason::MethodLength => "The request method is too long.",
            Reason::Preface => {
                "PRI is reserved for the first line of an HTTP/2 connection; send another method."
            }
            Reason::Framing => {
                "The length of the body must be given once: by one Content-Length or by \
                 Transfer-Encoding."
            }
            Reason::Host(error) => error.message(),
            Reason::Form => "The request target must be a path that starts with a slash.",
            Reason::TargetLength => "Path and query are too long for the upstream.",
            Reason::Path(error) => error.message(),
        }
    }

    /// Whether the connection must be closed, as the next request on it may start elsewhere than it
    /// seems. HTTP/2 frames its requests.
    fn closes_connection(self) -> bool {
        is_http1(self.version)
            && !matches!(self.reason, Reason::Path(_) | Reason::MethodLength | Reason::TargetLength)
    }
}

impl From<TargetError> for Rejection {
    fn from(error: TargetError) -> Self {
        let mut rejection = match error.reason {
            Reason::Trace => Rejection::method_not_allowed(HeaderValue::from_static(
                "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            )),
            _ => error.error_code().with_message(error.message()),
        };
        if error.closes_connection() {
            rejection = rejection.header(header::CONNECTION, HeaderValue::from_static("close"));
        }
        rejection
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for TargetError {}

/// The error of an invalid `Host` or `:authority`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostError {
    Missing,
    Repeated,
    Malformed,
    Mismatch,
}

impl HostError {
    fn message(self) -> &'static str {
        match self {
            Self::Missing => "The request has no Host header.",
            Self::Repeated => "The request has more than one Host header.",
            Self::Malformed => "The request's host is malformed.",
            Self::Mismatch => "The Host header contradicts the request's authority.",
        }
    }
}

fn is_http1(version: Version) -> bool {
    version < Version::HTTP_2
}

/// Checks `Host` (RFC 9112, section 3.2) and HTTP/2's `:authority` (RFC 9113, section 8.3.1).
fn check_host(head: &Parts) -> Result<(), HostError> {
    let mut lines = head.headers.get_all(header::HOST).iter();
    let host = match (lines.next(), lines.next()) {
        (_, Some(_)) => return Err(HostError::Repeated),
        (None, None) if needs_host(head) => return Err(HostError::Missing),
        (host, None) => host,
    };
    let host = host.map(HeaderValue::as_bytes);
    let authority = head.uri.authority().map(Authority::as_str);
    let authority = authority.filter(|_| !is_http1(head.version));
    for name in host.into_iter().chain(authority.map(str::as_bytes)) {
        if !is_authority(name) {
            return Err(HostError::Malformed);
        }
    }
    match (host, authority) {
        (Some(host), Some(name)) if !host.eq_ignore_ascii_case(name.as_bytes()) => {
            Err(HostError::Mismatch)
        }
        _ => Ok(()),
    }
}

/// Whether a request without `Host` needs one: HTTP/1.0 does not (RFC 9112, section 3.2), and HTTP/2
/// has `:authority` in its place.
fn needs_host(head: &Parts) -> bool {
    match is_http1(head.version) {
        true => head.version == Version::HTTP_11,
        false => head.uri.authority().is_none(),
    }
}

/// Whether `text` is a host name or address with an optional port. Of RFC 3986's `reg-name`, only
/// letters, digits and `-._~` are allowed.
fn is_authority(text: &[u8]) -> bool {
    let in_brackets = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let end_of = |text: &[u8], end: u8| text.iter().position(|byte| *byte == end);
    let (name, port) = match text.strip_prefix(b"[") {
        Some(inner) => match end_of(inner, b']') {
            Some(end) if inner[..end].iter().all(in_brackets) => (&inner[..end], &inner[end + 1..]),
            _ => return false,
        },
        None => match text.split_at(end_of(text, b':').unwrap_or(text.len())) {
            (name, port) if name.iter().all(in_name) => (name, port),
            _ => return false,
        },
    };
    !name.is_empty() && is_port(port)
}

/// Whether `text` is empty, or a colon and an optional port number (RFC 3986, section 3.2.3).
fn is_port(text: &[u8]) -> bool {
    match text {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            let number = str::from_utf8(digits).ok().map(str::parse::<u16>);
            digits.iter().all(u8::is_ascii_digit) && matches!(number, Some(Ok(_)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn check(request: http::request::Builder) -> Result<RequestTarget, TargetError> {
        RequestTarget::check(&request.body(()).unwrap().into_parts().0)
    }

    fn reason(request: http::request::Builder) -> Reason {
        check(request).unwrap_err().reason
    }

    #[test]
    fn debug_output_has_no_key_of_path_or_query() {
        let target = Request::get("https://h/v1/trial-alice-20261122-x7Qp?key=trial-alice");
        let target = check(target.version(Version::HTTP_2)).unwrap();
        assert!(!format!("{target:?}").contains("alice"));
    }

    #[test]
    fn trace_connect_and_long_methods_are_rejected() {
        for (method, status) in [("TRACE", 405), ("CONNECT", 400), ("PRI", 400)] {
            let request = Request::builder().method(method).uri("/").header("host", "a");
            let rejection = Rejection::from(check(request).unwrap_err());
            assert_eq!(rejection.status, status);
            assert_eq!(rejection.headers.contains_key("allow"), status == 405);
            assert_eq!(rejection.headers["connection"], "close");
        }
        let long = "X".repeat(33);
        let request = Request::builder().method(&*long).uri("/").header("host", "a");
        assert_eq!(reason(request), Reason::MethodLength);
        let request = Request::builder().method("PROPFIND").uri("/").header("host", "a");
        assert!(check(request).is_ok());
    }

    #[test]
    fn http2_authority_is_valid_and_matches_host() {
        let request = || Request::get("https://a.example/v1/x?y").version(Version::HTTP_2);
        assert_eq!(check(request()).unwrap().path_and_query().as_str(), "/v1/x?y");
        assert!(check(request().header("host", "A.example")).is_ok());
        let mismatch = check(request().header("host", "b.example")).unwrap_err();
        assert_eq!(mismatch.reason, Reason::Host(HostError::Mismatch));
        assert!(Rejection::from(mismatch).headers.is_empty());
        let userinfo = Request::get("https://u@a.example/").version(Version::HTTP_2);
        assert_eq!(reason(userinfo), Reason::Host(HostError::Malformed));
        let scheme = Request::get("ftp://a.example/").version(Version::HTTP_2);
        assert_eq!(reason(scheme), Reason::Form);
    }

    #[test]
    fn other_target_forms_and_ambiguous_framing_are_rejected() {
        for uri in ["http://a/x", "a:80", "*"] {
            let error = check(Request::get(uri).header("host", "a")).unwrap_err();
            assert_eq!(Rejection::from(error).status, 400, "{uri}");
        }
        let both = Request::post("/")
            .header("host", "a")
            .header("content-length", "3")
            .header("transfer-encoding", "chunked");
        assert_eq!(reason(both), Reason::Framing);
        let lengths = |lengths: &[&str]| {
            let request = Request::post("/").header("host", "a");
            lengths
                .iter()
                .fold(request, |request, length| request.header("content-length", *length))
        };
        assert!(check(lengths(&["3"])).is_ok());
        for bad in [&["3", "3"][..], &["3", "4"], &["3, 3"], &["+3"], &["3 "], &["0x3"], &[""]] {
            assert_eq!(reason(lengths(bad)), Reason::Framing, "{bad:?}");
            let http2 = lengths(bad).version(Version::HTTP_2);
            assert_eq!(reason(http2), Reason::Framing, "{bad:?}");
        }
    }

    fn host_error(request: http::request::Builder) -> HostError {
        check_host(&request.body(()).unwrap().into_parts().0).unwrap_err()
    }

    #[test]
    fn invalid_hosts_are_rejected() {
        assert_eq!(host_error(Request::get("/")), HostError::Missing);
        let old = Request::get("/").version(Version::HTTP_10).body(()).unwrap();
        assert_eq!(check_host(&old.into_parts().0), Ok(()));
        let twice = Request::get("/").header("host", "a").header("host", "a");
        assert_eq!(host_error(twice), HostError::Repeated);
        for bad in
            ["", "a b", "u@a", "a/b", "a,b", "a:b", "a:70000", "[::1", "[x]", "a:+1", "é", ":1"]
        {
            let request = Request::get("/").header("host", bad);
            assert_eq!(host_error(request), HostError::Malformed, "{bad}");
        }
        for good in ["a", "A.b-c.example", "a:80", "127.0.0.1:8787", "[::1]", "[::1]:8787", "a_b"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
    }
}
