use std::{
    fmt,
    io::{self, Write},
};

use flate2::write::MultiGzDecoder;
use http::{HeaderMap, HeaderName, header};

/// The longest text that is decoded, in bytes: an error message needs no more.
const LONGEST: usize = 1 << 20;

/// How a body is coded (RFC 9110, section 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Other,
}

impl Coding {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(header::CONTENT_ENCODING).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Self::Identity,
            (Some(coding), None) => match coding.as_bytes().to_ascii_lowercase().as_slice() {
                b"identity" => Self::Identity,
                b"gzip" | b"x-gzip" => Self::Gzip,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// Removes what was said about a body that does not travel as it was coded: its length, coding and
/// digests, and its strong `ETag`, which stands for these very bytes (RFC 9110, section 8.8.1).
pub(super) fn forget(headers: &mut HeaderMap) {
    const DIGESTS: [HeaderName; 4] = [
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("content-md5"),
        HeaderName::from_static("digest"),
        HeaderName::from_static("repr-digest"),
    ];
    for name in [header::CONTENT_ENCODING, header::CONTENT_LENGTH].iter().chain(&DIGESTS) {
        headers.remove(name);
    }
    if headers.get(header::ETAG).is_some_and(|etag| !etag.as_bytes().starts_with(b"W/")) {
        headers.remove(header::ETAG);
    }
}

/// Takes gzip off, piece by piece.
pub(super) struct Gunzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    begun: bool,
    decoded: usize,
}

impl Gunzip {
    pub(super) fn new() -> Self {
        Self { decoder: MultiGzDecoder::new(Vec::new()), begun: false, decoded: 0 }
    }

    /// What these bytes decode to. Fails on what is no gzip, and past 1 MiB of text.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.begun |= !bytes.is_empty();
        self.decoder.write_all(bytes)?;
        self.take()
    }

    /// The last of the text. Fails if the end is missing; nothing at all is an empty text.
    pub(super) fn finish(&mut self) -> io::Result<Vec<u8>> {
        if self.begun {
            self.decoder.try_finish()?;
        }
        self.take()
    }

    fn take(&mut self) -> io::Result<Vec<u8>> {
        let text = std::mem::take(self.decoder.get_mut());
        self.decoded += text.len();
        match self.decoded > LONGEST {
            true => Err(io::Error::other("a compressed error text is too long")),
            false => Ok(text),
        }
    }
}

impl fmt::Debug for Gunzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gunzip")
    }
}
