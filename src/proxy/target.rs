use std::fmt;

use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Version, header, request::Parts, uri::PathAndQuery,
};

use super::{
    host::{self, HostError, is_http1},
    path::{self, PathError},
};
use crate::error::Rejection;

const LONGEST_METHOD: usize = 32;

/// A request's path and query, checked: what it means to this server is what it means to any
/// other that reads the same bytes.
///
/// The one place where a target is judged. Routers and the proxy both use it, so a spelling that
/// one of them refuses cannot slip past the other. A router may leave it in the request's extensions,
/// so that the proxy need not judge again.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTarget(PathAndQuery);

/// Why a request target is refused. Becomes a [`Rejection`]: 405 for `TRACE`, 414 for an address
/// that grew too long, else 400, with `Connection: close` where the request's own bounds are in
/// doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetError {
    reason: Reason,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Forbidden,
    Preface,
    Method,
    Framing,
    Host(HostError),
    Form,
    Length,
    Path(PathError),
}

impl RequestTarget {
    /// Checks method, framing, `Host` or `:authority`, and path of a request.
    ///
    /// Refused are, with a [`TargetError`]: `TRACE`, `CONNECT` and `PRI`; methods longer than 32 bytes;
    /// `Content-Length` next to `Transfer-Encoding`, twice, or other than digits; on HTTP/1.1 no
    /// `Host`; on any version two, a malformed one, or one that contradicts `:authority` (RFC 9112,
    /// section 3.2; RFC 9113, section 8.3.1); on HTTP/1 any form but the origin form; and paths with
    /// an empty or dot segment, backslash, control character or invalid escape, in any
    /// percent-encoding. A `%2F` inside a segment passes unchanged. The query is not judged.
    pub fn check(head: &Parts) -> Result<Self, TargetError> {
        let refuse = |reason| TargetError { reason, version: head.version };
        method(&head.method).map_err(refuse)?;
        framing(&head.headers).map_err(refuse)?;
        host::check(head).map_err(|error| refuse(Reason::Host(error)))?;
        form(head).map_err(refuse)?;
        let target = head.uri.path_and_query();
        let target = target.ok_or(refuse(Reason::Form))?;
        path::check(target.path()).map_err(|error| refuse(Reason::Path(error)))?;
        Ok(Self(target.clone()))
    }

    /// What an earlier [`check`](Self::check) has left in the request's extensions, if it is still
    /// what the request says; else checks it.
    pub(super) fn of(head: &Parts) -> Result<Self, TargetError> {
        match head.extensions.get::<Self>() {
            Some(checked) if head.uri.path_and_query() == Some(&checked.0) => Ok(checked.clone()),
            _ => Self::check(head),
        }
    }

    /// The path as it was sent, percent-encoding included. Starts with `/`.
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// Path and query as they were sent.
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.0
    }
}

fn method(method: &Method) -> Result<(), Reason> {
    if *method == Method::TRACE {
        Err(Reason::Forbidden)
    } else if *method == Method::CONNECT {
        // Its target is an authority, never a path (RFC 9110, section 9.3.6).
        Err(Reason::Form)
    } else if method.as_str() == "PRI" {
        Err(Reason::Preface)
    } else if method.as_str().len() > LONGEST_METHOD {
        Err(Reason::Method)
    } else {
        Ok(())
    }
}

/// HTTP/2 needs no declared length, but on the way to an HTTP/1 upstream it becomes the framing.
fn framing(headers: &HeaderMap) -> Result<(), Reason> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(());
    };
    let is_number = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    let is_only_one = lengths.next().is_none() && !headers.contains_key(header::TRANSFER_ENCODING);
    if is_number && is_only_one { Ok(()) } else { Err(Reason::Framing) }
}

fn form(head: &Parts) -> Result<(), Reason> {
    let absolute = head.uri.scheme().is_some() || head.uri.authority().is_some();
    let scheme = head.uri.scheme_str().unwrap_or("http");
    let allowed = match is_http1(head.version) {
        true => !absolute,
        false => matches!(scheme, "http" | "https"),
    };
    if allowed { Ok(()) } else { Err(Reason::Form) }
}

impl TargetError {
    /// The address behind the proxy would be too long.
    pub(super) fn too_long() -> Self {
        Self { reason: Reason::Length, version: Version::HTTP_2 }
    }

    /// The stable name of this error.
    pub fn code(self) -> &'static str {
        match self.reason {
            Reason::Forbidden => "method_not_allowed",
            Reason::Method | Reason::Preface => "invalid_method",
            Reason::Framing => "ambiguous_framing",
            Reason::Host(_) => "invalid_host",
            Reason::Form => "invalid_target",
            Reason::Length => "uri_too_long",
            Reason::Path(_) => "invalid_path",
        }
    }

    fn message(self) -> &'static str {
        match self.reason {
            Reason::Forbidden => "TRACE is not served here.",
            Reason::Method => "The request method is too long.",
            Reason::Preface => {
                "PRI is reserved for the first line of an HTTP/2 connection; send another method."
            }
            Reason::Framing => {
                "The length of the body must be said once: by one Content-Length or by \
                 Transfer-Encoding."
            }
            Reason::Host(error) => error.message(),
            Reason::Form => "The request target must be a path that starts with a slash.",
            Reason::Length => "Path and query are too long for the upstream.",
            Reason::Path(error) => error.message(),
        }
    }

    /// Whether the connection cannot be trusted any further: what follows on it may not be what
    /// it seems. HTTP/2 has no such header and no such doubt.
    fn closes(self) -> bool {
        is_http1(self.version)
            && !matches!(self.reason, Reason::Path(_) | Reason::Method | Reason::Length)
    }
}

impl From<TargetError> for Rejection {
    fn from(error: TargetError) -> Self {
        let new = |status| {
            Rejection::permanent(status, "invalid_request_error", error.code(), error.message())
        };
        let mut rejection = match error.reason {
            Reason::Forbidden => Rejection::method_not_allowed(HeaderValue::from_static(
                "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            )),
            Reason::Length => new(StatusCode::URI_TOO_LONG),
            _ => new(StatusCode::BAD_REQUEST),
        };
        if error.closes() {
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
    fn methods() {
        for (method, status) in [("TRACE", 405), ("CONNECT", 400), ("PRI", 400)] {
            let request = Request::builder().method(method).uri("/").header("host", "a");
            let rejection = Rejection::from(check(request).unwrap_err());
            assert_eq!(rejection.status, status);
            assert_eq!(rejection.headers.contains_key("allow"), status == 405);
            assert_eq!(rejection.headers["connection"], "close");
        }
        let long = "X".repeat(33);
        let request = Request::builder().method(&*long).uri("/").header("host", "a");
        assert_eq!(reason(request), Reason::Method);
        let request = Request::builder().method("PROPFIND").uri("/").header("host", "a");
        assert!(check(request).is_ok());
    }

    #[test]
    fn http2_authority() {
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
    fn forms_and_framing() {
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
}
