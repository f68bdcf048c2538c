use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use http::{Request, request::Parts};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A request's body. A request that is sent again has none, and had none.
    pub(super) struct Sent<B> {
        #[pin]
        body: Option<B>,
        held: Option<Arc<()>>,
    }
}

/// What it takes to send a request again: its head.
///
/// Only requests that change nothing and have no body may be sent again (RFC 9110, section 9.2.1): the
/// upstream may have seen the first. Those that change the same however often they arrive could do
/// so at a time when nobody wants it any more.
pub(super) struct Again(Parts);

impl<B> Sent<B> {
    /// The request, and how to send it again if it may be.
    pub(super) fn first(request: Request<B>) -> (Request<Self>, Option<Again>)
    where
        B: Body,
    {
        let may_repeat = request.method().is_safe() && request.body().is_end_stream();
        let (head, body) = request.into_parts();
        let again = may_repeat.then(|| Again(head.clone()));
        (Request::from_parts(head, Self { body: Some(body), held: None }), again)
    }

    /// What is there as long as the body.
    pub(super) fn held(&mut self) -> Weak<()> {
        Arc::downgrade(self.held.get_or_insert_default())
    }
}

impl Again {
    pub(super) fn request<B>(self) -> Request<Sent<B>> {
        Request::from_parts(self.0, Sent { body: None, held: None })
    }
}

impl<B: Body> Body for Sent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().body.as_pin_mut() {
            Some(body) => body.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
