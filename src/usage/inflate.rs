//! Takes a content coding off an answer that passes by in any chunks.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// Decodes gzip or deflate into `W`. It takes about 80 KiB of memory, whatever it is given.
#[derive(Debug)]
pub(super) enum Inflate<W: Write> {
    Gzip(MultiGzDecoder<W>),
    /// Deflate of which nothing has come yet.
    Unbegun(W),
    Zlib(ZlibDecoder<W>),
    /// What many send as `deflate`, without the wrapper that RFC 9110 asks for.
    Raw(DeflateDecoder<W>),
}

impl<W: Write + Default> Inflate<W> {
    pub(super) fn gzip(out: W) -> Self {
        Self::Gzip(MultiGzDecoder::new(out))
    }

    pub(super) fn deflate(out: W) -> Self {
        Self::Unbegun(out)
    }

    /// Decodes the next chunk. Fails on what is not in this coding, and if `W` fails.
    pub(super) fn decode(&mut self, chunk: &[u8]) -> io::Result<()> {
        let Some(first) = chunk.first() else { return Ok(()) };
        if let Self::Unbegun(out) = self {
            let out = std::mem::take(out);
            // The method in a zlib header. As the begin of raw deflate it would be a stored block with
            // padding that is not zero, which nobody writes.
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
            Self::Unbegun(_) => Ok(()),
        }
    }

    /// What was decoded has gone here.
    pub(super) fn out(&self) -> &W {
        match self {
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zlib(decoder) => decoder.get_ref(),
            Self::Raw(decoder) => decoder.get_ref(),
            Self::Unbegun(out) => out,
        }
    }

    /// Gives `W` back, with whether all of the coded text has come.
    pub(super) fn finish(&mut self) -> (W, bool) {
        let is_whole = match self {
            Self::Gzip(decoder) => decoder.try_finish().is_ok(),
            Self::Zlib(decoder) => decoder.try_finish().is_ok(),
            Self::Raw(decoder) => decoder.try_finish().is_ok(),
            Self::Unbegun(_) => true,
        };
        let out = match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zlib(decoder) => decoder.get_mut(),
            Self::Raw(decoder) => decoder.get_mut(),
            Self::Unbegun(out) => out,
        };
        (std::mem::take(out), is_whole)
    }
}
