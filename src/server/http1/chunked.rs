//! Finds the end of a chunked body.

/// Maximum total length of chunk extensions and trailers, which are ignored.
const MAX_EXTRA_BYTES: usize = 16 * 1024;

/// The state of a parser for chunked bodies (RFC 9112, section 7.1). It accepts only what all parsers
/// read alike: lines end with CR LF, and a size has up to 15 digits, with white space only between it
/// and an extension.
#[derive(Debug, Default)]
pub(super) struct ChunkedBody {
    expected: Expected,
    /// Number of bytes left of the current chunk.
    left: u64,
    /// Number of digits of the current size so far.
    digits: u8,
    extra_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expected {
    #[default]
    Size,
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerOrEnd,
    Trailer,
    TrailerLf,
    EndLf,
}

impl ChunkedBody {
    /// Returns how many of `bytes` belong to the body and whether it ends there, or `None` if they are
    /// malformed.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Option<(usize, bool)> {
        let mut at = 0;
        while at < bytes.len() {
            if self.expected == Expected::Data {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.left -= here as u64;
                at += here;
                if self.left == 0 {
                    self.expected = Expected::DataCr;
                }
                continue;
            }
            let is_end = self.expected == Expected::EndLf;
            self.expected = self.after(bytes[at])?;
            at += 1;
            if is_end {
                return Some((at, true));
            }
        }
        Some((at, false))
    }

    /// Returns what is expected after a byte outside of the chunks' data.
    fn after(&mut self, byte: u8) -> Option<Expected> {
        use Expected as E;
        Some(match (self.expected, byte) {
            (E::Size, b'\r') if self.digits > 0 => E::SizeLf,
            (E::Size, b';') if self.digits > 0 => E::Extension,
            (E::SizeSpace, b';') => E::Extension,
            (E::Size, b' ' | b'\t') if self.digits > 0 => self.extra(E::SizeSpace)?,
            (E::SizeSpace, b' ' | b'\t') => self.extra(E::SizeSpace)?,
            (E::Size, _) if self.digits < 15 => {
                let digit = char::from(byte).to_digit(16)?;
                self.left = self.left << 4 | u64::from(digit);
                self.digits += 1;
                E::Size
            }
            (E::Extension, b'\r') => E::SizeLf,
            (E::SizeLf, b'\n') => {
                self.digits = 0;
                if self.left > 0 { E::Data } else { E::TrailerOrEnd }
            }
            (E::DataCr, b'\r') => E::DataLf,
            (E::DataLf, b'\n') => E::Size,
            (E::TrailerOrEnd, b'\r') => E::EndLf,
            (E::EndLf, b'\n') => E::Size,
            (E::Trailer, b'\r') => E::TrailerLf,
            (E::TrailerLf, b'\n') => E::TrailerOrEnd,
            (E::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.extra(E::Extension)?,
            (E::Trailer | E::TrailerOrEnd, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extra(E::Trailer)?
            }
            _ => return None,
        })
    }

    /// Counts an ignored byte, and returns what is `expected` next.
    fn extra(&mut self, expected: Expected) -> Option<Expected> {
        self.extra_bytes += 1;
        (self.extra_bytes <= MAX_EXTRA_BYTES).then_some(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(body: &str) -> Option<usize> {
        let (used, is_end) = ChunkedBody::default().advance(body.as_bytes())?;
        is_end.then_some(used)
    }

    #[test]
    fn the_end_is_found_wherever_the_body_is_split() {
        let body = b"5 \t;a\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\na: b\r\nc: d\r\n\r\nGET /";
        let end = body.len() - b"GET /".len();
        for cut in 0..end {
            let mut chunked = ChunkedBody::default();
            assert_eq!(chunked.advance(&body[..cut]), Some((cut, false)));
            assert_eq!(chunked.advance(&body[cut..]), Some((end - cut, true)), "{cut}");
        }
    }

    #[test]
    fn only_the_strict_syntax_is_accepted() {
        assert_eq!(ends("0\r\n\r\n"), Some(5));
        assert_eq!(ends("000\r\n\r\n"), Some(7));
        for body in [
            "\r\n",
            "0\n\n",
            "0\r\n\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "5 5;a\r\nhello\r\n0\r\n\r\n",
            " ;a\r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "-1\r\n",
            ";x\r\n",
            "1000000000000000\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "0\r\na: b\n\r\n",
            "0\r\na\0b\r\n\r\n",
        ] {
            let mut chunked = ChunkedBody::default();
            assert_eq!(chunked.advance(body.as_bytes()), None, "{body:?}");
        }
    }
}
