use http::{HeaderValue, Version, header, request::Parts, uri::Authority};

/// What is wrong with the host that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostError {
    Missing,
    Repeated,
    Malformed,
    Mismatch,
}

impl HostError {
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Missing => "The request names no host.",
            Self::Repeated => "The request has more than one Host header.",
            Self::Malformed => "The request's host is malformed.",
            Self::Mismatch => "The Host header contradicts the request's authority.",
        }
    }
}

pub(super) fn is_http1(version: Version) -> bool {
    version < Version::HTTP_2
}

/// Checks `Host` (RFC 9112, section 3.2) and HTTP/2's `:authority` (RFC 9113, section 8.3.1).
pub(super) fn check(head: &Parts) -> Result<(), HostError> {
    let mut lines = head.headers.get_all(header::HOST).iter();
    let host = match (lines.next(), lines.next()) {
        (_, Some(_)) => return Err(HostError::Repeated),
        (None, None) if is_missing(head) => return Err(HostError::Missing),
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

/// Whether a request without `Host` needs one: HTTP/1.0 knows no such field (RFC 9112, section 3.2),
/// and HTTP/2 has `:authority` in its place.
fn is_missing(head: &Parts) -> bool {
    match is_http1(head.version) {
        true => head.version == Version::HTTP_11,
        false => head.uri.authority().is_none(),
    }
}

/// Whether `text` is a host name or address with an optional port, as names are in use: of RFC
/// 3986's `reg-name`, only letters, digits and `-._~`.
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

/// Nothing, or a colon and a port number, which may be left out (RFC 3986, section 3.2.3).
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

    fn refused(request: http::request::Builder) -> HostError {
        check(&request.body(()).unwrap().into_parts().0).unwrap_err()
    }

    #[test]
    fn hosts() {
        assert_eq!(refused(Request::get("/")), HostError::Missing);
        let old = Request::get("/").version(Version::HTTP_10).body(()).unwrap();
        assert_eq!(check(&old.into_parts().0), Ok(()));
        let twice = Request::get("/").header("host", "a").header("host", "a");
        assert_eq!(refused(twice), HostError::Repeated);
        for bad in
            ["", "a b", "u@a", "a/b", "a,b", "a:b", "a:70000", "[::1", "[x]", "a:+1", "é", ":1"]
        {
            let request = Request::get("/").header("host", bad);
            assert_eq!(refused(request), HostError::Malformed, "{bad}");
        }
        for good in ["a", "A.b-c.example", "a:80", "127.0.0.1:8787", "[::1]", "[::1]:8787", "a_b"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
    }
}
