//! A request's body, for which the gateway waits so long and no longer.

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::Version;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tower::BoxError;

use crate::patience::Patience;

/// A body that fails when its sender does not go on. Time runs only while somebody wants more of it.
pub(crate) struct Upload {
    body: Incoming,
    is_http2: bool,
    patience: Patience,
}

/// Why an upload is over before its end.
#[derive(Debug)]
enum Broken {
    Stalled,
    Reset,
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        let kind = match broken {
            Broken::Stalled => io::ErrorKind::TimedOut,
            Broken::Reset => io::ErrorKind::ConnectionReset,
        };
        Self::new(kind, broken)
    }
}

impl Upload {
    pub(crate) fn new(body: Incoming, version: Version, patience: Patience) -> Self {
        Self { body, is_http2: version == Version::HTTP_2, patience }
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
            return Poll::Ready(Some(Err(io::Error::from(Broken::Stalled).into())));
        };
        // hyper takes a reset with NO_ERROR for the end, wherever it comes.
        if frame.is_none() && this.is_http2 && !this.body.is_end_stream() {
            return Poll::Ready(Some(Err(io::Error::from(Broken::Reset).into())));
        }
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

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stalled => "the request body did not go on",
            Self::Reset => "the request body was reset before its end",
        })
    }
}

impl Error for Broken {}
