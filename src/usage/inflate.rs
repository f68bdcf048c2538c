//! Decodes the content of a response that arrives in any chunks.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// Decodes gzip or deflate into `W`. It takes about 80 KiB of memory, whatever it is given.
pub(crate) enum Inflate<W: Write> {
    Gzip(MultiGzDecoder<W>),
    /// Deflate of which nothing has arrived yet.
    Unknown(W),
    Zlib(ZlibDecoder<W>),
    /// What many send as `deflate`, without the zlib wrapper that RFC 9110 requires.
    Raw(DeflateDecoder<W>),
}

impl<W: Write + Default> Inflate<W> {
    pub(super) fn gzip(out: W) -> Self {
        Self::Gzip(MultiGzDecoder::new(out))
    }

    pub(super) fn deflate(out: W) -> Self {
        Self::Unknown(out)
    }

    /// Decodes the next chunk. Fails if the data is not in this coding, and if `W` fails.
    pub(super) fn decode(&mut self, chunk: &[u8]) -> io::Result<()> {
        let Some(first) = chunk.first() else { return Ok(()) };
        if let Self::Unknown(out) = self {
            let out = std::mem::take(out);
            // The method in a zlib header. As the beginning of raw deflate it would be a stored block
            // with padding that is not zero, which nobody writes.
            let is_zlib = first & 0x0f == 8;
            *self = match is_zlib {
                true => Self::Zlib(ZlibDecoder::new(out)),
                false => Self::Raw(DeflateDecoder::new(out)),
            };
        }
        match self {
            Self::Gzip(decoder) => decoder.write_all(chunk).and_then(|()| decoder.flush()),
            Self::Zlib(decoder) => decoder.write_all(chunk).and_then(|()| decoder.flush()),
            Self::Raw(decoder) => decoder.write_all(chunk).and_then(|()| decoder.flush()),
            Self::Unknown(_) => Ok(()),
        }
    }

    /// Returns the writer of decoded data.
    pub(super) fn get_ref(&self) -> &W {
        match self {
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zlib(decoder) => decoder.get_ref(),
            Self::Raw(decoder) => decoder.get_ref(),
            Self::Unknown(out) => out,
        }
    }

    /// Returns `W`, and whether all of the coded data has arrived.
    pub(super) fn finish(&mut self) -> (W, bool) {
        let is_whole = match self {
            Self::Gzip(decoder) => decoder.try_finish().is_ok(),
            Self::Zlib(decoder) => decoder.try_finish().is_ok(),
            Self::Raw(decoder) => decoder.try_finish().is_ok(),
            Self::Unknown(_) => true,
        };
        let out = match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zlib(decoder) => decoder.get_mut(),
            Self::Raw(decoder) => decoder.get_mut(),
            Self::Unknown(out) => out,
        };
        (std::mem::take(out), is_whole)
    }
}
