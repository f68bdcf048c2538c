use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

const LONGEST: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(1);

pin_project! {
    /// Reads how a body begins: at most 1 KiB and for at most one second, for the log. A short
    /// body is read to its end, so that its connection can serve again.
    #[derive(Debug)]
    pub(super) struct Excerpt<B> {
        #[pin]
        body: B,
        #[pin]
        patience: Sleep,
        text: Vec<u8>,
    }
}

impl<B> Excerpt<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body, patience: sleep(PATIENCE), text: Vec::new() }
    }
}

impl<B: Body> Future for Excerpt<B> {
    type Output = Vec<u8>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<u8>> {
        let mut this = self.project();
        while this.text.len() < LONGEST {
            match this.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(mut data) = frame.into_data() else {
                        break;
                    };
                    while data.has_remaining() && this.text.len() < LONGEST {
                        let chunk = data.chunk();
                        let length = chunk.len().min(LONGEST - this.text.len());
                        this.text.extend_from_slice(&chunk[..length]);
                        data.advance(length);
                    }
                }
                Poll::Ready(_) => break,
                Poll::Pending if this.patience.as_mut().poll(cx).is_ready() => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(std::mem::take(this.text))
    }
}
