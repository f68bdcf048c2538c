//! Validates the head of a request before hyper parses it.

use std::mem::MaybeUninit;

use memchr::{memchr_iter, memmem};

use crate::server::{MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES};

/// A valid head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Length of the head in bytes.
    pub(super) length: usize,
    pub(super) framing: Framing,
}

/// How the length of the request's body is determined (RFC 9112, section 6.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// Why a head is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// The head is not an HTTP/1 request.
    Malformed,
    /// The length of the body is ambiguous.
    Framing,
    /// The request target is too long.
    TargetTooLong,
    /// The head is too long or has too many header lines.
    TooLarge,
}

/// Returns the head at the start of `bytes`, or `None` if it is incomplete. The first `searched` bytes do
/// not contain its end.
pub(super) fn validate(bytes: &[u8], searched: usize) -> Result<Option<Head>, BadHead> {
    let is_complete = has_empty_line(&bytes[searched.saturating_sub(EMPTY_LINE.len() - 1)..]);
    // A head that comes byte by byte is parsed only at its start and at its end.
    if (is_complete || searched == 0)
        && let Some(head) = parse(bytes)?
    {
        return Ok(Some(head));
    }
    if bytes.len() <= MAX_HEAD_BYTES {
        return Ok(None);
    }
    let first_line = &bytes[..MAX_TARGET_BYTES];
    Err(if memchr::memchr(b'\n', first_line).is_none() {
        BadHead::TargetTooLong
    } else {
        BadHead::TooLarge
    })
}

const EMPTY_LINE: &[u8] = b"\r\n\r\n";

/// Also finds lines that end with LF alone, which `parse` rejects.
fn has_empty_line(bytes: &[u8]) -> bool {
    memmem::find(bytes, EMPTY_LINE).is_some() || memmem::find(bytes, b"\n\n").is_some()
}

fn parse(bytes: &[u8]) -> Result<Option<Head>, BadHead> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_request_with_uninit_headers(
        &mut request,
        bytes,
        &mut headers,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooLarge),
        Err(_) => return Err(BadHead::Malformed),
    };
    let target = request.path.unwrap_or("");
    // A URL parser would drop what follows as a fragment.
    if target.contains('#') {
        return Err(BadHead::Malformed);
    }
    if target.len() > MAX_TARGET_BYTES {
        return Err(BadHead::TargetTooLong);
    }
    // hyper would reject it without a response body.
    if http::Uri::try_from(target).is_err() {
        return Err(BadHead::Malformed);
    }
    if length > MAX_HEAD_BYTES {
        return Err(BadHead::TooLarge);
    }
    let head = &bytes[..length];
    if memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r') {
        return Err(BadHead::Malformed);
    }
    let framing = framing(request.headers, request.version == Some(1)).ok_or(BadHead::Framing)?;
    Ok(Some(Head { length, framing }))
}

/// Returns how the body is framed, or `None` if that is stated twice or in an unsupported way.
fn framing(headers: &[httparse::Header<'_>], is_http_11: bool) -> Option<Framing> {
    let mut framing = None;
    for header in headers {
        let stated = if header.name.eq_ignore_ascii_case("content-length") {
            Framing::Length(length(header.value)?)
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            let chunked = is_http_11 && header.value.eq_ignore_ascii_case(b"chunked");
            chunked.then_some(Framing::Chunked)?
        } else {
            continue;
        };
        if framing.replace(stated).is_some() {
            return None;
        }
    }
    Some(framing.unwrap_or(Framing::Length(0)))
}

/// Parses a `Content-Length` of 1 to 18 digits.
fn length(value: &[u8]) -> Option<u64> {
    let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validated(lines: &str) -> Result<Option<Head>, BadHead> {
        validate(lines.as_bytes(), 0)
    }

    #[test]
    fn an_unambiguous_framing_is_accepted() {
        for (lines, framing) in [
            ("", Framing::Length(0)),
            ("Content-Length: 12\r\n", Framing::Length(12)),
            ("content-length:\t0012 \r\n", Framing::Length(12)),
            ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
        ] {
            let head = format!("POST /v1/x HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            let expected = Head { length: head.len(), framing };
            assert_eq!(validated(&format!("{head}more")), Ok(Some(expected)), "{lines}");
        }
    }

    #[test]
    fn every_other_framing_is_rejected() {
        for lines in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding:\r\n",
        ] {
            let head = format!("POST /v1/x HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            assert_eq!(validated(&head), Err(BadHead::Framing), "{lines}");
        }
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(validated(old), Err(BadHead::Framing));
    }

    #[test]
    fn a_malformed_head_is_rejected() {
        for head in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length : 5\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 5\r\n Transfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET /\r\n\r\n",
            "GET ?a HTTP/1.1\r\n\r\n",
            "GET /v1/x?a=1#b HTTP/1.1\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}",
        ] {
            assert_eq!(validated(head), Err(BadHead::Malformed), "{head:?}");
        }
    }

    #[test]
    fn a_long_target_is_distinguished_from_a_large_head() {
        let target = "x".repeat(MAX_TARGET_BYTES);
        let long = format!("GET /{target} HTTP/1.1\r\n\r\n");
        assert_eq!(validated(&long), Err(BadHead::TargetTooLong));
        let endless = "GET /".to_owned() + &"x".repeat(MAX_HEAD_BYTES);
        assert_eq!(validated(&endless), Err(BadHead::TargetTooLong));
        let value = "GET / HTTP/1.1\r\na: ".to_owned() + &"x".repeat(MAX_HEAD_BYTES);
        assert_eq!(validated(&value), Err(BadHead::TooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(validated(&many), Err(BadHead::TooLarge));
    }

    #[test]
    fn a_head_is_found_wherever_it_is_split() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 1..head.len() {
            assert_eq!(validate(&head[..cut], 0), Ok(None), "{cut}");
            let expected = Head { length: head.len(), framing: Framing::Length(0) };
            assert_eq!(validate(head, cut), Ok(Some(expected)), "{cut}");
        }
    }
}
