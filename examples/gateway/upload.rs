//! A request's body, for which the gateway waits so long and no longer.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tower::BoxError;

use crate::patience::Patience;

/// A body that fails when its sender does not go on. Time runs only while somebody wants more of it.
pub(crate) struct Upload {
    body: Incoming,
    patience: Patience,
}

/// The sender has not gone on.
#[derive(Debug)]
pub(crate) struct UploadStalled;

impl Upload {
    pub(crate) fn new(body: Incoming, patience: Patience) -> Self {
        Self { body, patience }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            ready!(this.patience.poll_over(cx));
            return Poll::Ready(Some(Err(UploadStalled.into())));
        };
        if let Some(Ok(frame)) = &frame {
            this.patience.moved(frame.data_ref().map_or(0, Buf::remaining));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Display for UploadStalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request body did not go on")
    }
}

impl Error for UploadStalled {}
