use std::{
    error::Error,
    fmt,
    io::{self, Write},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use http::{HeaderMap, HeaderName, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::proxy::{credential::Secret, error::BoxError};

/// Maximum length of a decoded text, in bytes: an error message needs no more.
const MAX_DECODED: usize = 1 << 20;

pin_project! {
    /// A body in which each occurrence of the upstream's credential is masked with asterisks.
    ///
    /// The length stays the same, except that gzip is decoded. At most the credential's length less
    /// one byte is held back, and only while it may be the credential's beginning. Without a mask,
    /// frames are returned as they are.
    #[derive(Debug)]
    pub(super) struct MaskedBody<B> {
        #[pin]
        inner: B,
        // Boxed, as few responses have one.
        mask: Option<Box<Mask>>,
    }
}

/// Masks a secret in a stream of chunks.
pub(in crate::proxy) struct Mask {
    secret: Secret,
    gunzip: Option<Gunzip>,
    /// Bytes that may be the beginning of the secret.
    pending: Vec<u8>,
    state: State,
}

/// What follows the pending bytes.
enum State {
    Open,
    Trailers(HeaderMap),
    Ended,
}

impl Mask {
    /// Creates a mask for a body that is coded in gzip or not at all.
    pub(in crate::proxy) fn new(secret: Secret, is_gzip: bool) -> Self {
        let gunzip = is_gzip.then(Gunzip::new);
        Self { secret, gunzip, pending: Vec::new(), state: State::Open }
    }

    fn push(&mut self, mut data: impl Buf) -> io::Result<Bytes> {
        let data = data.copy_to_bytes(data.remaining());
        match &mut self.gunzip {
            Some(gunzip) => self.pending.extend(gunzip.decode(&data)?),
            None => self.pending.extend_from_slice(&data),
        }
        self.secret.mask(&mut self.pending);
        let kept = self.secret.partial_match_len(&self.pending);
        let rest = self.pending.split_off(self.pending.len() - kept);
        Ok(mem::replace(&mut self.pending, rest).into())
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<Bytes> {
        self.state = trailers.map_or(State::Ended, State::Trailers);
        if let Some(mut gunzip) = self.gunzip.take() {
            self.pending.extend(gunzip.finish()?);
            self.secret.mask(&mut self.pending);
        }
        Ok(mem::take(&mut self.pending).into())
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mask").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl<B> MaskedBody<B> {
    pub(super) fn new(inner: B, mask: Option<Mask>) -> Self {
        Self { inner, mask: mask.map(Box::new) }
    }
}

impl<B> Body for MaskedBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(mask) = this.mask else {
            let frame = ready!(this.inner.poll_frame(cx));
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        };
        while let State::Open = mask.state {
            let frame = ready!(this.inner.as_mut().poll_frame(cx));
            let frame = frame.transpose().map_err(Into::into)?;
            let data = match frame.map(Frame::into_data) {
                Some(Ok(data)) => mask.push(data)?,
                Some(Err(frame)) => mask.finish(frame.into_trailers().ok())?,
                None => mask.finish(None)?,
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data.into()))));
            }
        }
        Poll::Ready(match mem::replace(&mut mask.state, State::Ended) {
            State::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            _ => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.mask {
            Some(mask) => matches!(mask.state, State::Ended),
            None => self.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        let Some(mask) = &self.mask else { return hint };
        if mask.gunzip.is_some() {
            return SizeHint::default();
        }
        let pending = mask.pending.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + pending);
        }
        hint.set_lower(hint.lower() + pending);
        hint
    }
}

/// Removes the fields that describe a body that is not forwarded as it was coded: its length, coding
/// and digests, and its strong `ETag`, which identifies the very bytes (RFC 9110, section 8.8.1).
pub(in crate::proxy) fn remove_content_fields(headers: &mut HeaderMap) {
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

/// Decodes gzip chunk by chunk.
struct Gunzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    has_input: bool,
    decoded: usize,
}

impl Gunzip {
    fn new() -> Self {
        Self { decoder: MultiGzDecoder::new(Vec::new()), has_input: false, decoded: 0 }
    }

    /// Decodes the next chunk. Fails on invalid gzip, and beyond 1 MiB of text.
    fn decode(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.has_input |= !bytes.is_empty();
        self.decoder.write_all(bytes)?;
        self.take()
    }

    /// Returns the rest of the text. Fails if the end is missing; an empty body is an empty text.
    fn finish(&mut self) -> io::Result<Vec<u8>> {
        if self.has_input {
            self.decoder.try_finish()?;
        }
        self.take()
    }

    fn take(&mut self) -> io::Result<Vec<u8>> {
        let text = mem::take(self.decoder.get_mut());
        self.decoded += text.len();
        match self.decoded > MAX_DECODED {
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http_body_util::{BodyExt, StreamBody};
    use std::convert::Infallible;

    fn secret(text: &'static str) -> Secret {
        Secret::from_authorization(&HeaderValue::from_static(text)).unwrap()
    }

    async fn masked(secret: &Secret, chunks: &[&str]) -> Vec<u8> {
        let frame = |chunk: &&str| Ok::<_, Infallible>(Frame::data(Bytes::from(chunk.to_string())));
        let frames: Vec<_> = chunks.iter().map(frame).collect();
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let body = MaskedBody::new(body, Some(Mask::new(secret.clone(), false)));
        body.collect().await.unwrap().to_bytes().into()
    }

    #[tokio::test]
    async fn the_secret_is_masked_however_it_is_split() {
        let secret = secret("Bearer sk-sk-1");
        for text in ["x sk-sk-1 y", "sk-sk-1", "sk-sk-sk-1sk-sk-1", "no sk-sk-", "sk-s", ""] {
            let expected = text.replace("sk-sk-1", "*******");
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let chunks = [&text[..first], &text[first..second], &text[second..]];
                    let text = masked(&secret, &chunks).await;
                    assert_eq!(String::from_utf8(text).unwrap(), expected, "{chunks:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn trailers_follow_the_pending_bytes() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from(1))]);
        let frames = [
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"a sk"))),
            Ok(Frame::trailers(trailers.clone())),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let body =
            MaskedBody::new(body, Some(Mask::new(secret("sk-1"), false))).collect().await.unwrap();
        assert_eq!(body.trailers(), Some(&trailers));
        assert_eq!(body.to_bytes(), "a sk");
    }

    #[test]
    fn debug_hides_the_secret() {
        let body = MaskedBody::new((), Some(Mask::new(secret("Bearer hush"), false)));
        assert!(!format!("{body:?}").contains("hush"));
    }
}
