use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A body in which every occurrence of a secret is replaced by as many asterisks. Without a
    /// secret it passes through untouched.
    ///
    /// What may be the beginning of the secret is held back until the next bytes tell, so that no
    /// split hides it. A compressed body is not looked into.
    pub struct MaskedBody<B> {
        #[pin]
        inner: B,
        secret: Option<Arc<[u8]>>,
        held: BytesMut,
        trailers: Option<HeaderMap>,
    }
}

impl<B> MaskedBody<B> {
    pub(super) fn new(inner: B, secret: Option<Arc<[u8]>>) -> Self {
        let secret = secret.filter(|secret| !secret.is_empty());
        Self { inner, secret, held: BytesMut::new(), trailers: None }
    }
}

impl<B> Body for MaskedBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(secret) = this.secret else { return this.inner.poll_frame(cx) };
        if let Some(trailers) = this.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        loop {
            let frame = match ready!(this.inner.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if this.held.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Ok(data(this.held.split())))),
            };
            let mut data_part = match frame.into_data() {
                Ok(data_part) => data_part,
                Err(frame) if this.held.is_empty() => return Poll::Ready(Some(Ok(frame))),
                Err(frame) => {
                    *this.trailers = frame.into_trailers().ok();
                    return Poll::Ready(Some(Ok(data(this.held.split()))));
                }
            };
            let bytes = data_part.copy_to_bytes(data_part.remaining());
            this.held.extend_from_slice(&bytes);
            mask(this.held, secret);
            let ready = this.held.len() - beginning(this.held, secret);
            if ready > 0 {
                return Poll::Ready(Some(Ok(data(this.held.split_to(ready)))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.trailers.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + held);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

fn data<D: From<Bytes>>(bytes: BytesMut) -> Frame<D> {
    Frame::data(bytes.freeze().into())
}

fn mask(text: &mut [u8], secret: &[u8]) {
    let mut from = 0;
    while let Some(at) = text[from..].windows(secret.len()).position(|window| window == secret) {
        let found = from + at..from + at + secret.len();
        from = found.end;
        text[found].fill(b'*');
    }
}

/// How many of the last bytes may be the beginning of the secret.
fn beginning(text: &[u8], secret: &[u8]) -> usize {
    let most = text.len().min(secret.len() - 1);
    (1..=most).rev().find(|&count| text.ends_with(&secret[..count])).unwrap_or_default()
}

impl<B: fmt::Debug> fmt::Debug for MaskedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskedBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[tokio::test]
    async fn the_secret_is_masked_at_every_split() {
        let text = b"key sk-aab sk-aaab sk-sk-aaab end sk-aa";
        for first in 0..text.len() {
            for second in first..text.len() {
                let chunks = [&text[..first], &text[first..second], &text[second..]];
                let frames = chunks
                    .map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(chunk))));
                let body = StreamBody::new(futures_util::stream::iter(frames));
                let masked = MaskedBody::new(body, Some(Arc::from(&b"sk-aaab"[..])));
                let seen = masked.collect().await.unwrap().to_bytes();
                assert_eq!(seen, "key sk-aab ******* sk-******* end sk-aa".as_bytes());
            }
        }
    }
}
