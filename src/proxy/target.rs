use std::borrow::Cow;

use http::{
    HeaderValue, Method, StatusCode, Uri, Version,
    header::{ALLOW, CONNECTION, HOST},
    request::Parts,
    uri::Authority,
};

use crate::error::Rejection;

/// A request target that can lead nowhere but where it says.
///
/// Routing, policy, logs and the upstream all go by the one path that was checked here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTarget(Uri);

/// Why a request target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetError {
    /// `TRACE` is not served.
    Method,
    /// The method is longer than any known one.
    LongMethod,
    /// There is no `Host`, more than one, or one that is no authority.
    Host,
    /// The target is not a path (RFC 9112, section 3.2.1), that of `CONNECT` among them.
    NotAPath,
    /// A dot segment, in any encoding.
    DotSegment,
    /// An empty segment: `//`.
    EmptySegment,
    /// A backslash, in any encoding.
    Backslash,
    /// A control character, in any encoding.
    Control,
    /// A percent sign that encodes nothing, or encodings within encodings.
    Encoding,
}

const LONGEST_METHOD: usize = 16;
/// `%252525…`: nobody means that.
const MOST_DECODINGS: usize = 4;

impl RequestTarget {
    /// Checks a request's method, host and target.
    pub fn check(request: &Parts) -> Result<Self, TargetError> {
        check_method(&request.method)?;
        check_host(request)?;
        let absolute = request.uri.scheme().is_some() || request.uri.authority().is_some();
        if absolute && request.version < Version::HTTP_2 {
            return Err(TargetError::NotAPath);
        }
        check_path(request.uri.path())?;
        Ok(Self(request.uri.clone()))
    }

    /// The path, as it was sent.
    pub fn path(&self) -> &str {
        self.0.path()
    }
}

fn check_method(method: &Method) -> Result<(), TargetError> {
    if *method == Method::TRACE {
        return Err(TargetError::Method);
    }
    if *method == Method::CONNECT {
        return Err(TargetError::NotAPath);
    }
    if method.as_str().len() > LONGEST_METHOD {
        return Err(TargetError::LongMethod);
    }
    Ok(())
}

/// RFC 9112, section 3.2: exactly one valid `Host` in HTTP/1.1; RFC 9113, section 8.3.1: in HTTP/2
/// it may be missing, but not differ from `:authority`.
fn check_host(request: &Parts) -> Result<(), TargetError> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(TargetError::Host);
    }
    match (host, request.uri.authority()) {
        (None, authority) => {
            let named = authority.is_some() || request.version == Version::HTTP_10;
            if named { Ok(()) } else { Err(TargetError::Host) }
        }
        (Some(host), authority) => {
            let host: Authority = host.as_bytes().try_into().map_err(|_| TargetError::Host)?;
            let differs = authority.is_some_and(|authority| *authority != host);
            if differs || host.as_str().contains(['@', ',']) {
                Err(TargetError::Host)
            } else {
                Ok(())
            }
        }
    }
}

fn check_path(path: &str) -> Result<(), TargetError> {
    if !path.starts_with('/') {
        return Err(TargetError::NotAPath);
    }
    let mut decoded = Cow::Borrowed(path.as_bytes());
    for round in 0..MOST_DECODINGS {
        check_decoded(&decoded)?;
        let (further, lone) = percent_decode(&decoded);
        // After the first round a percent sign may stand for itself: it was sent as `%25`.
        if lone && round == 0 {
            return Err(TargetError::Encoding);
        }
        if further == *decoded {
            return Ok(());
        }
        decoded = Cow::Owned(further);
    }
    Err(TargetError::Encoding)
}

fn check_decoded(path: &[u8]) -> Result<(), TargetError> {
    for &byte in path {
        match byte {
            b'\\' => return Err(TargetError::Backslash),
            0..=0x1f | 0x7f => return Err(TargetError::Control),
            _ => {}
        }
    }
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            b"." | b".." => return Err(TargetError::DotSegment),
            // A path may end in a slash.
            b"" if segments.peek().is_some() => return Err(TargetError::EmptySegment),
            _ => {}
        }
    }
    Ok(())
}

/// Decodes once, and tells whether a percent sign encodes nothing.
fn percent_decode(text: &[u8]) -> (Vec<u8>, bool) {
    let mut decoded = Vec::with_capacity(text.len());
    let (mut rest, mut lone) = (text, false);
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            decoded.push(*byte);
        } else if let Some(encoded) = hex_pair(after) {
            decoded.push(encoded);
            rest = &after[2..];
        } else {
            decoded.push(b'%');
            lone = true;
        }
    }
    (decoded, lone)
}

fn hex_pair(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

impl From<TargetError> for Rejection {
    fn from(error: TargetError) -> Self {
        let (status, code, message) = match error {
            TargetError::Method => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "TRACE is not served.")
            }
            TargetError::LongMethod => {
                (StatusCode::BAD_REQUEST, "invalid_method", "The method is not a known one.")
            }
            TargetError::Host => (
                StatusCode::BAD_REQUEST,
                "invalid_host",
                "The request needs exactly one valid Host header.",
            ),
            TargetError::NotAPath => {
                (StatusCode::BAD_REQUEST, "invalid_target", "The request target must be a path.")
            }
            TargetError::DotSegment => {
                (StatusCode::BAD_REQUEST, "invalid_path", "The path holds a dot segment.")
            }
            TargetError::EmptySegment => {
                (StatusCode::BAD_REQUEST, "invalid_path", "The path holds an empty segment (//).")
            }
            TargetError::Backslash => {
                (StatusCode::BAD_REQUEST, "invalid_path", "The path holds a backslash.")
            }
            TargetError::Control => {
                (StatusCode::BAD_REQUEST, "invalid_path", "The path holds a control character.")
            }
            TargetError::Encoding => {
                (StatusCode::BAD_REQUEST, "invalid_path", "The path is not encoded properly.")
            }
        };
        let rejection = Rejection::new(status, "invalid_request_error", code, message)
            .header(CONNECTION, HeaderValue::from_static("close"));
        if error == TargetError::Method {
            let known = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
            return rejection.header(ALLOW, known);
        }
        rejection
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check(path: &str) -> Result<(), TargetError> {
        check_path(path)
    }

    #[test]
    fn ordinary_paths_pass() {
        for path in [
            "/",
            "/v1/",
            "/v1/chat/completions",
            "/v1/models/deepseek-ai%2Fdeepseek-v3",
            "/v1/files/a.b..c",
            "/v1/%E4%BD%A0",
            "/v1/100%25",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn spellings_that_lead_elsewhere_are_refused() {
        for path in [
            "/v1/../admin",
            "/v1/%2e%2e/admin",
            "/v1/.%2E/admin",
            "/v1/%252e%252e/admin",
            "/v1/%25252e%25252e/admin",
            "/v1/..%2fadmin",
            "/v1/..%5cadmin",
            "/v1/..\\admin",
            "/v1//admin",
            "/v1/%2f/admin",
            "/v1/.",
            "/v1/..",
            "//v1",
            "/v1/a%0d%0ab",
            "/v1/a%00b",
            "/v1/a%7fb",
            "/v1/a%zz",
            "/v1/a%2",
            "/v1/%2525252525252e",
            "v1",
            "*",
        ] {
            assert!(check(path).is_err(), "{path}");
        }
    }

    #[test]
    fn hosts_must_be_one_and_valid() {
        let with = |hosts: &[&str]| {
            let mut request = Request::get("/v1");
            for host in hosts {
                request = request.header(HOST, *host);
            }
            RequestTarget::check(&request.body(()).unwrap().into_parts().0)
        };
        assert!(with(&["localhost:8787"]).is_ok());
        assert!(with(&["[::1]:80"]).is_ok());
        for hosts in [&[][..], &["a", "a"], &["a b"], &["a/b"], &["user@a"], &[""], &["a,b"]] {
            assert!(with(hosts).is_err(), "{hosts:?}");
        }
    }

    #[test]
    fn only_http2_may_name_an_authority() {
        let request = |version| {
            let request =
                Request::get("http://gateway/v1").version(version).header(HOST, "gateway");
            request.body(()).unwrap().into_parts().0
        };
        assert_eq!(RequestTarget::check(&request(Version::HTTP_11)), Err(TargetError::NotAPath));
        assert!(RequestTarget::check(&request(Version::HTTP_2)).is_ok());
    }
}
