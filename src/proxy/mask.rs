use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{coding::Gunzip, error::BoxError, secret::Secret};

pin_project! {
    /// A body in which the upstream's credential, should it occur, reads as asterisks.
    ///
    /// The length stays the same, but for gzip, which is taken off. At most the credential's
    /// length less one byte is held back, and only while it may be the credential's beginning.
    /// Without anything to mask, frames pass untouched.
    #[derive(Debug)]
    pub(super) struct Masked<B> {
        #[pin]
        inner: B,
        mask: Option<Mask>,
    }
}

/// Bytes go in as they come, and out with the secret masked.
pub(super) struct Mask {
    secret: Secret,
    gunzip: Option<Gunzip>,
    held: Vec<u8>,
    stage: Stage,
}

/// What is left to read, or to say after the held bytes.
enum Stage {
    Open,
    Trailers(HeaderMap),
    Ended,
}

impl Mask {
    pub(super) fn new(secret: Secret, gunzip: Option<Gunzip>) -> Self {
        Self { secret, gunzip, held: Vec::new(), stage: Stage::Open }
    }

    fn push(&mut self, mut data: impl Buf) -> io::Result<Bytes> {
        let data = data.copy_to_bytes(data.remaining());
        match &mut self.gunzip {
            Some(gunzip) => self.held.extend(gunzip.decode(&data)?),
            None => self.held.extend_from_slice(&data),
        }
        self.secret.mask(&mut self.held);
        let begun = self.secret.begun(&self.held);
        let rest = self.held.split_off(self.held.len() - begun);
        Ok(std::mem::replace(&mut self.held, rest).into())
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<Bytes> {
        self.stage = trailers.map_or(Stage::Ended, Stage::Trailers);
        if let Some(mut gunzip) = self.gunzip.take() {
            self.held.extend(gunzip.finish()?);
            self.secret.mask(&mut self.held);
        }
        Ok(std::mem::take(&mut self.held).into())
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mask").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

impl<B> Masked<B> {
    pub(super) fn new(inner: B, mask: Option<Mask>) -> Self {
        Self { inner, mask }
    }
}

impl<B> Body for Masked<B>
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
        while let Stage::Open = mask.stage {
            let frame = ready!(this.inner.as_mut().poll_frame(cx));
            let frame = frame.transpose().map_err(Into::into)?;
            let clear = match frame.map(Frame::into_data) {
                Some(Ok(data)) => mask.push(data)?,
                Some(Err(frame)) => mask.finish(frame.into_trailers().ok())?,
                None => mask.finish(None)?,
            };
            if !clear.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(clear.into()))));
            }
        }
        Poll::Ready(match std::mem::replace(&mut mask.stage, Stage::Ended) {
            Stage::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            _ => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.mask {
            Some(mask) => matches!(mask.stage, Stage::Ended),
            None => self.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        let Some(mask) = &self.mask else { return hint };
        if mask.gunzip.is_some() {
            return SizeHint::default();
        }
        let held = mask.held.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(hint.lower() + held);
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http_body_util::{BodyExt, StreamBody};
    use std::convert::Infallible;

    fn secret(text: &'static str) -> Secret {
        Secret::of(&HeaderValue::from_static(text)).unwrap()
    }

    async fn masked(secret: &Secret, chunks: &[&str]) -> Vec<u8> {
        let frame = |chunk: &&str| Ok::<_, Infallible>(Frame::data(Bytes::from(chunk.to_string())));
        let frames: Vec<_> = chunks.iter().map(frame).collect();
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let body = Masked::new(body, Some(Mask::new(secret.clone(), None)));
        body.collect().await.unwrap().to_bytes().into()
    }

    #[tokio::test]
    async fn masked_at_every_split() {
        let secret = secret("Bearer sk-sk-1");
        for text in ["x sk-sk-1 y", "sk-sk-1", "sk-sk-sk-1sk-sk-1", "no sk-sk-", "sk-s", ""] {
            let expected = text.replace("sk-sk-1", "*******");
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let chunks = [&text[..first], &text[first..second], &text[second..]];
                    let seen = masked(&secret, &chunks).await;
                    assert_eq!(String::from_utf8(seen).unwrap(), expected, "{chunks:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn trailers_follow_what_was_held() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from(1))]);
        let frames = [
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"a sk"))),
            Ok(Frame::trailers(trailers.clone())),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let body =
            Masked::new(body, Some(Mask::new(secret("sk-1"), None))).collect().await.unwrap();
        assert_eq!(body.trailers(), Some(&trailers));
        assert_eq!(body.to_bytes(), "a sk");
    }

    #[test]
    fn debug_hides_the_secret() {
        let body = Masked::new((), Some(Mask::new(secret("Bearer hush"), None)));
        assert!(!format!("{body:?}").contains("hush"));
    }
}
