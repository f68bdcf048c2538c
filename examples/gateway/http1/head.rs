//! The head of one request, judged by its bytes.

use std::mem::MaybeUninit;

use memchr::{memchr_iter, memmem};

use crate::server::{MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES};

/// A head that is taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// How many bytes it has.
    pub(super) length: usize,
    pub(super) framing: Framing,
}

/// How long the request's body is (RFC 9112, section 6.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// It is no HTTP/1 request.
    Malformed,
    /// It does not say in one clear way where its body ends.
    Framing,
    /// Its target is too long.
    TargetTooLong,
    /// It is too long, or has too many headers.
    TooLarge,
}

/// The head at the beginning of `bytes`; `None` if it goes on. Its end is not before `searched`.
pub(super) fn judge(bytes: &[u8], searched: usize) -> Result<Option<Head>, BadHead> {
    let is_over = has_empty_line(&bytes[searched.saturating_sub(EMPTY_LINE.len() - 1)..]);
    // One that comes byte by byte is parsed when it begins and when it is over.
    if (is_over || searched == 0)
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

/// Lines that end otherwise are refused, but found here, too.
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
    // Whoever reads it as an address would cut it off there.
    if target.contains('#') {
        return Err(BadHead::Malformed);
    }
    if target.len() > MAX_TARGET_BYTES {
        return Err(BadHead::TargetTooLong);
    }
    // hyper would refuse it, with no body.
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

/// How the body is framed, if that is said at most once.
fn framing(headers: &[httparse::Header<'_>], is_http_11: bool) -> Option<Framing> {
    let mut framing = None;
    for header in headers {
        let said = if header.name.eq_ignore_ascii_case("content-length") {
            Framing::Length(length(header.value)?)
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            let chunked = is_http_11 && header.value.eq_ignore_ascii_case(b"chunked");
            chunked.then_some(Framing::Chunked)?
        } else {
            continue;
        };
        if framing.replace(said).is_some() {
            return None;
        }
    }
    Some(framing.unwrap_or(Framing::Length(0)))
}

/// Digits only, and few enough of them for any body there is.
fn length(value: &[u8]) -> Option<u64> {
    let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(lines: &str) -> Result<Option<Head>, BadHead> {
        judge(lines.as_bytes(), 0)
    }

    #[test]
    fn one_clear_framing_is_taken() {
        for (lines, framing) in [
            ("", Framing::Length(0)),
            ("Content-Length: 12\r\n", Framing::Length(12)),
            ("content-length:\t0012 \r\n", Framing::Length(12)),
            ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
        ] {
            let head = format!("POST /v1/x HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            let expected = Head { length: head.len(), framing };
            assert_eq!(judged(&format!("{head}more")), Ok(Some(expected)), "{lines}");
        }
    }

    #[test]
    fn every_other_framing_is_refused() {
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
            assert_eq!(judged(&head), Err(BadHead::Framing), "{lines}");
        }
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(judged(old), Err(BadHead::Framing));
    }

    #[test]
    fn what_is_no_head_is_refused() {
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
            assert_eq!(judged(head), Err(BadHead::Malformed), "{head:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused_by_name() {
        let target = "x".repeat(MAX_TARGET_BYTES);
        let long = format!("GET /{target} HTTP/1.1\r\n\r\n");
        assert_eq!(judged(&long), Err(BadHead::TargetTooLong));
        let endless = "GET /".to_owned() + &"x".repeat(MAX_HEAD_BYTES);
        assert_eq!(judged(&endless), Err(BadHead::TargetTooLong));
        let value = "GET / HTTP/1.1\r\na: ".to_owned() + &"x".repeat(MAX_HEAD_BYTES);
        assert_eq!(judged(&value), Err(BadHead::TooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(judged(&many), Err(BadHead::TooLarge));
    }

    #[test]
    fn a_head_is_found_wherever_it_was_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 1..head.len() {
            assert_eq!(judge(&head[..cut], 0), Ok(None), "{cut}");
            let expected = Head { length: head.len(), framing: Framing::Length(0) };
            assert_eq!(judge(head, cut), Ok(Some(expected)), "{cut}");
        }
    }
}
