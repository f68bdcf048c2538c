//! Validates the head of a request before hyper parses it.

use std::mem::MaybeUninit;

use http::{Request, StatusCode, Version, uri::PathAndQuery};
use memchr::{memchr_iter, memmem};

use super::super::limits::{MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES};

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

/// Extension of a request: why its head is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectedHead {
    /// The head is not an HTTP/1 request.
    Malformed,
    /// The length of the body is ambiguous (RFC 9112, section 6.3).
    Framing,
    /// The request target has more than 8 KiB.
    TargetTooLong,
    /// The head has more than 64 KiB or more than 100 header lines.
    TooLarge,
}

impl RejectedHead {
    /// Returns the status of the response: 400, 414 or 431.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed | Self::Framing => StatusCode::BAD_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }

    /// Checks the limits that hyper does not enforce for HTTP/2.
    pub(in super::super) fn of_http2<B>(request: &Request<B>) -> Option<Self> {
        if request.version() != Version::HTTP_2 {
            return None;
        }
        let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
        if target.len() > MAX_TARGET_BYTES {
            Some(Self::TargetTooLong)
        } else if request.headers().len() > MAX_HEADERS + 1 {
            Some(Self::TooLarge)
        } else {
            None
        }
    }
}

/// Returns the head at the start of `bytes`, or `None` if it is incomplete. The first `searched` bytes do
/// not contain its end.
pub(super) fn validate(bytes: &[u8], searched: usize) -> Result<Option<Head>, RejectedHead> {
    let is_complete = has_empty_line(&bytes[searched.saturating_sub(EMPTY_LINE.len() - 1)..]);
    if is_complete && let Some(head) = parse_plain(bytes) {
        return Ok(Some(head));
    }
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
        RejectedHead::TargetTooLong
    } else {
        RejectedHead::TooLarge
    })
}

const EMPTY_LINE: &[u8] = b"\r\n\r\n";

/// Also finds lines that end with LF alone, which `parse` rejects.
fn has_empty_line(bytes: &[u8]) -> bool {
    memmem::find(bytes, EMPTY_LINE).is_some() || memmem::find(bytes, b"\n\n").is_some()
}

/// Bytes of tokens (RFC 9110, section 5.6.2), of request targets, and of header values.
const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const VALUE: u8 = 4;
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        if character.is_ascii_alphanumeric() {
            classes[byte] |= TOKEN | TARGET;
        }
        if character == b'\t' || (character >= b' ' && character != 0x7f) {
            classes[byte] |= VALUE;
        }
        byte += 1;
    }
    let classes = with(classes, b"!#$%&'*+-.^_`|~", TOKEN);
    with(classes, b"!$%&'()*+,-./:;=?@_~", TARGET)
};

/// Returns the classes with these bytes in one more.
const fn with(mut classes: [u8; 256], bytes: &[u8], class: u8) -> [u8; 256] {
    let mut at = 0;
    while at < bytes.len() {
        classes[bytes[at] as usize] |= class;
        at += 1;
    }
    classes
}

/// Returns the number of bytes of this class at the start.
fn run(bytes: &[u8], class: u8) -> usize {
    bytes.iter().take_while(|byte| CLASSES[usize::from(**byte)] & class != 0).count()
}

/// Returns a head in which nothing is in doubt, as nearly all are, after which hyper parses it. [`parse`] decides on
/// others.
fn parse_plain(bytes: &[u8]) -> Option<Head> {
    let mut rest = bytes;
    let method = run(rest, TOKEN);
    rest = rest.get(method..)?.strip_prefix(b" ")?;
    let target = run(rest, TARGET);
    if method == 0 || !rest.starts_with(b"/") || target > MAX_TARGET_BYTES {
        return None;
    }
    rest = rest[target..].strip_prefix(b" HTTP/1.1\r\n")?;
    let mut framing = None;
    for _ in 0..=MAX_HEADERS {
        if let Some(after) = rest.strip_prefix(b"\r\n") {
            let length = bytes.len() - after.len();
            let framing = framing.unwrap_or(Framing::Length(0));
            return (length <= MAX_HEAD_BYTES).then_some(Head { length, framing });
        }
        let (name, value) = rest.split_at(run(rest, TOKEN));
        let value = value.strip_prefix(b":")?;
        let (value, after) = value.split_at(run(value, VALUE));
        if name.is_empty() {
            return None;
        }
        note_framing(&mut framing, name, value.trim_ascii(), true)?;
        rest = after.strip_prefix(b"\r\n")?;
    }
    None
}

fn parse(bytes: &[u8]) -> Result<Option<Head>, RejectedHead> {
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
        Err(httparse::Error::TooManyHeaders) => return Err(RejectedHead::TooLarge),
        Err(_) => return Err(RejectedHead::Malformed),
    };
    let target = request.path.unwrap_or("");
    // A URL parser would drop what follows as a fragment.
    if target.contains('#') {
        return Err(RejectedHead::Malformed);
    }
    if target.len() > MAX_TARGET_BYTES {
        return Err(RejectedHead::TargetTooLong);
    }
    // hyper would reject it without a response body.
    if http::Uri::try_from(target).is_err() {
        return Err(RejectedHead::Malformed);
    }
    if length > MAX_HEAD_BYTES {
        return Err(RejectedHead::TooLarge);
    }
    let head = &bytes[..length];
    if memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r') {
        return Err(RejectedHead::Malformed);
    }
    let framing =
        framing(request.headers, request.version == Some(1)).ok_or(RejectedHead::Framing)?;
    Ok(Some(Head { length, framing }))
}

/// Returns how the body is framed, or `None` if that is stated twice or in an unsupported way.
fn framing(headers: &[httparse::Header<'_>], is_http_11: bool) -> Option<Framing> {
    let mut framing = None;
    for header in headers {
        note_framing(&mut framing, header.name.as_bytes(), header.value, is_http_11)?;
    }
    Some(framing.unwrap_or(Framing::Length(0)))
}

/// Notes what a header line states of the framing, or returns `None` if that is stated twice or in an unsupported way.
fn note_framing(
    framing: &mut Option<Framing>,
    name: &[u8],
    value: &[u8],
    is_http_11: bool,
) -> Option<()> {
    let stated = if name.eq_ignore_ascii_case(b"content-length") {
        Framing::Length(length(value)?)
    } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
        let chunked = is_http_11 && value.eq_ignore_ascii_case(b"chunked");
        chunked.then_some(Framing::Chunked)?
    } else {
        return Some(());
    };
    framing.replace(stated).is_none().then_some(())
}

/// Parses a `Content-Length` of 1 to 18 digits.
fn length(value: &[u8]) -> Option<u64> {
    let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validated(lines: &str) -> Result<Option<Head>, RejectedHead> {
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
            assert_eq!(validated(&head), Err(RejectedHead::Framing), "{lines}");
        }
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(validated(old), Err(RejectedHead::Framing));
    }

    #[test]
    fn what_is_plain_is_valid_whatever_one_byte_is() {
        let head = b"POST /v1/x?a=1 HTTP/1.1\r\nHost: a.b\r\ncontent-length: 12\r\nX-Y:z \r\n\r\n";
        assert!(parse_plain(head).is_some());
        let mut plain = 0;
        for at in 0..head.len() {
            for byte in 0..=255 {
                let mut changed = head.to_vec();
                changed[at] = byte;
                if let Some(head) = parse_plain(&changed) {
                    plain += 1;
                    assert_eq!(parse(&changed), Ok(Some(head)), "{}", changed.escape_ascii());
                }
            }
        }
        assert!(plain > 1000, "{plain}");
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
            assert_eq!(validated(head), Err(RejectedHead::Malformed), "{head:?}");
        }
    }

    #[test]
    fn a_long_target_is_distinguished_from_a_large_head() {
        let target = "x".repeat(MAX_TARGET_BYTES);
        let long = format!("GET /{target} HTTP/1.1\r\n\r\n");
        assert_eq!(validated(&long), Err(RejectedHead::TargetTooLong));
        let endless = "GET /".to_owned() + &"x".repeat(MAX_HEAD_BYTES);
        assert_eq!(validated(&endless), Err(RejectedHead::TargetTooLong));
        let value = "GET / HTTP/1.1\r\na: ".to_owned() + &"x".repeat(MAX_HEAD_BYTES);
        assert_eq!(validated(&value), Err(RejectedHead::TooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(validated(&many), Err(RejectedHead::TooLarge));
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
