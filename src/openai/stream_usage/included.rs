use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use memchr::memmem;
use pin_project_lite::pin_project;

use super::{edit::Edit, room::HeldRoom};

type BodyFrame<B> = Result<Frame<<B as Body>::Data>, <B as Body>::Error>;

pin_project! {
    /// A body of which a part may have been read before it is handed on: a request's, to make it ask
    /// for usage, or that of a response that may have refused the question.
    pub struct IncludedBody<B>
    where
        B: Body,
    {
        #[pin]
        inner: Inner<B>,
    }
}

pin_project! {
    #[project = InnerProj]
    enum Inner<B>
    where
        B: Body,
    {
        Passed { #[pin] body: B },
        // Boxed, as few requests need it and it is larger than most bodies.
        Read { read: Box<ReadBody<B>> },
    }
}

/// A body of which a part was read and is still to be handed on.
pub(super) struct ReadBody<B: Body> {
    /// Copied, as frames may be tiny and each may keep a whole buffer from being freed.
    read: Vec<u8>,
    /// The room that it takes, if that is limited.
    room: Option<HeldRoom>,
    /// What goes on first.
    pieces: VecDeque<Bytes>,
    /// What comes after that: trailers or an error.
    next: Option<BodyFrame<B>>,
    /// What is not read yet, unless all is. A body that was polled stays where it is.
    rest: Option<Pin<Box<B>>>,
    /// How many bytes are left to hand on, if that was known before any was read. The rest cannot tell:
    /// some bodies claim to be empty once they have failed.
    length: Option<u64>,
}

/// A request's body before it was changed.
pub(super) struct OriginalBody {
    data: Bytes,
    trailers: Option<HeaderMap>,
    length: Option<u64>,
}

impl<B: Body> ReadBody<B> {
    /// A body that is read whatever others are.
    pub(super) fn new(body: B) -> Self {
        Self::within(body, None)
    }

    /// A body that is read as far as there is room.
    pub(super) fn within(body: B, room: Option<HeldRoom>) -> Self {
        Self {
            read: Vec::new(),
            room,
            pieces: VecDeque::new(),
            next: None,
            length: body.size_hint().exact(),
            rest: Some(Box::pin(body)),
        }
    }

    /// The body as it was before the change.
    pub(super) fn original(original: OriginalBody) -> Self {
        let OriginalBody { data, trailers, length } = original;
        Self {
            read: Vec::new(),
            room: None,
            pieces: VecDeque::from([data]),
            next: trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            length,
            rest: None,
        }
    }

    /// Reads on, to the end, or until more than `most` bytes are there or no room is left. Ready with
    /// whether all of it is.
    pub(super) fn poll_whole(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<bool> {
        while let Some(rest) = &mut self.rest
            && !rest.is_end_stream()
        {
            match ready!(rest.as_mut().poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                None => self.rest = None,
                Some(Ok(Ok(mut data))) => {
                    if !self.make_room(data.remaining(), most) {
                        self.pieces.push_back(data.copy_to_bytes(data.remaining()));
                        return Poll::Ready(false);
                    }
                    self.read.put(data);
                    if self.read.len() > most {
                        return Poll::Ready(false);
                    }
                }
                Some(Ok(Err(trailers))) => {
                    self.next = Some(Ok(trailers));
                    self.rest = None;
                }
                Some(Err(error)) => {
                    self.next = Some(Err(error));
                    return Poll::Ready(false);
                }
            }
        }
        Poll::Ready(self.length.is_none_or(|length| length == self.read.len() as u64))
    }

    /// Makes room for so many bytes more, if there is any. A length that is known is made room for at
    /// once, as a buffer that grows by itself may take twice that.
    fn make_room(&mut self, more: usize, most: usize) -> bool {
        let needed = self.read.len() + more;
        if needed <= self.read.capacity() {
            return true;
        }
        let length = self.length.map_or(2 * needed, |length| length.min(most as u64) as usize);
        let length = length.min(most).max(needed);
        let has_room = self.room.as_mut().is_none_or(|room| room.grow_to(length));
        if has_room {
            self.read.reserve_exact(length - self.read.len());
        }
        has_room
    }

    /// What was read, in its room until nobody holds it any more.
    fn take_read(&mut self) -> Bytes {
        let read = mem::take(&mut self.read);
        match self.room.take() {
            Some(room) => room.hold(read),
            None => read.into(),
        }
    }

    /// Whether what was read has this text in it.
    pub(super) fn contains(&self, text: &str) -> bool {
        memmem::find(&self.read, text.as_bytes()).is_some()
    }

    /// Makes a body that was read to its end ask for usage, if it is to. Returns its new length then,
    /// and the body as it was.
    pub(super) fn include_usage(&mut self) -> Option<(usize, OriginalBody)> {
        let Edit { at, text } = Edit::of(&self.read)?;
        let mut before = self.take_read();
        let trailers = match &self.next {
            Some(Ok(frame)) => frame.trailers_ref().cloned(),
            _ => None,
        };
        let original = OriginalBody { data: before.clone(), trailers, length: self.length };
        let after = before.split_off(at.end);
        before.truncate(at.start);
        self.pieces.extend([before, Bytes::from_static(text.as_bytes()), after]);
        let length = self.pieces.iter().map(Bytes::len).sum();
        self.length = self.length.map(|_| length as u64);
        Some((length, original))
    }

    fn is_end_stream(&self) -> bool {
        let is_read = self.pieces.is_empty() && self.next.is_none();
        is_read && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // A length that was unknown stays so, lest the body lose its trailers to a fixed one.
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<B> ReadBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<BodyFrame<B>>> {
        let frame = if let Some(piece) = self.pieces.pop_front() {
            Some(Ok(Frame::data(piece.into())))
        } else if let Some(next) = self.next.take() {
            Some(next)
        } else if let Some(rest) = &mut self.rest {
            ready!(rest.as_mut().poll_frame(cx))
        } else {
            None
        };
        if let (Some(length), Some(Ok(frame))) = (&mut self.length, &frame) {
            let bytes = frame.data_ref().map_or(0, Buf::remaining);
            *length = length.saturating_sub(bytes as u64);
        }
        Poll::Ready(frame)
    }
}

impl<B: Body> IncludedBody<B> {
    pub(super) fn passed(body: B) -> Self {
        Self { inner: Inner::Passed { body } }
    }

    pub(super) fn read(mut read: ReadBody<B>) -> Self {
        if !read.read.is_empty() {
            let data = read.take_read();
            read.pieces.push_front(data);
        }
        Self { inner: Inner::Read { read: Box::new(read) } }
    }
}

impl<B> Body for IncludedBody<B>
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
        match self.project().inner.project() {
            InnerProj::Passed { body } => body.poll_frame(cx),
            InnerProj::Read { read } => read.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Passed { body } => body.is_end_stream(),
            Inner::Read { read } => read.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Passed { body } => body.size_hint(),
            Inner::Read { read } => read.size_hint(),
        }
    }
}

impl<B: Body> fmt::Debug for IncludedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IncludedBody")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_of_known_length_is_held_at_its_size() {
        const LENGTH: usize = 100_000;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for (most, pieces) in [(LENGTH, 1000), (1 << 20, 1000), (1 << 20, 7)] {
            let mut read = ReadBody::new(Pieces { left: LENGTH, piece: LENGTH / pieces });
            assert_eq!(read.poll_whole(most, &mut cx), Poll::Ready(true));
            assert_eq!((read.read.len(), read.read.capacity()), (LENGTH, LENGTH), "{pieces}");
        }
    }

    /// A body of zeros, in pieces of one size.
    struct Pieces {
        left: usize,
        piece: usize,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<BodyFrame<Self>>> {
            let length = self.piece.min(self.left);
            self.left -= length;
            Poll::Ready((length > 0).then(|| Ok(Frame::data(vec![0; length].into()))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.left as u64)
        }
    }
}
