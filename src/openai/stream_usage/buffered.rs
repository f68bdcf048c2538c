use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use memchr::memmem;
use pin_project_lite::pin_project;

use super::edit::Edit;

type BodyFrame<B> = Result<Frame<<B as Body>::Data>, <B as Body>::Error>;

pin_project! {
    /// A body of which a part may have been read before it is passed on: a request's, to make it request
    /// usage, or that of a response that may reject the option.
    pub struct BufferedBody<B>
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
        Unread { #[pin] body: B },
        // Boxed, as it is rare and larger than most bodies.
        Read { read: Box<ReadBody<B>> },
    }
}

/// A body of which a part was read and is not passed on yet.
pub(super) struct ReadBody<B: Body> {
    /// Copied, as frames may be tiny and each may keep a whole buffer from being freed.
    read: Vec<u8>,
    /// Its share of the budget, if it has one.
    share: Option<BudgetShare>,
    /// What is passed on first.
    pieces: VecDeque<Bytes>,
    /// What is passed on after that: trailers or an error.
    next: Option<BodyFrame<B>>,
    /// What is not read yet. Boxed, as a body that was polled must not move.
    rest: Option<Pin<Box<B>>>,
    /// Number of bytes that are left to pass on, if it was known before any was read. The hint of the rest is
    /// no help: some bodies claim to be empty once they have failed.
    length: Option<u64>,
}

/// A request body before it was changed.
pub(super) struct OriginalBody {
    data: Bytes,
    trailers: Option<HeaderMap>,
    length: Option<u64>,
}

impl<B: Body> ReadBody<B> {
    /// Creates a body that is read without a budget.
    pub(super) fn new(body: B) -> Self {
        Self::with_share(body, None)
    }

    /// Creates a body that is read within its share of a budget.
    pub(super) fn with_share(body: B, share: Option<BudgetShare>) -> Self {
        Self {
            read: Vec::new(),
            share,
            pieces: VecDeque::new(),
            next: None,
            length: body.size_hint().exact(),
            rest: Some(Box::pin(body)),
        }
    }

    /// Creates the body as it was before the change.
    pub(super) fn original(original: OriginalBody) -> Self {
        let OriginalBody { data, trailers, length } = original;
        Self {
            read: Vec::new(),
            share: None,
            pieces: VecDeque::from([data]),
            next: trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            length,
            rest: None,
        }
    }

    /// Reads on to the end, or until more than `max` bytes are read or the budget is spent. Ready with
    /// whether the whole body was read.
    pub(super) fn poll_whole(&mut self, max: usize, cx: &mut Context<'_>) -> Poll<bool> {
        while let Some(rest) = &mut self.rest
            && !rest.is_end_stream()
        {
            match ready!(rest.as_mut().poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                None => self.rest = None,
                Some(Ok(Ok(mut data))) => {
                    if !self.reserve(data.remaining(), max) {
                        self.pieces.push_back(data.copy_to_bytes(data.remaining()));
                        return Poll::Ready(false);
                    }
                    self.read.put(data);
                    if self.read.len() > max {
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

    /// Reserves capacity for more bytes within the budget. Returns whether that was possible. A known length
    /// is reserved at once, as a buffer that grows by itself may take twice that.
    fn reserve(&mut self, more: usize, max: usize) -> bool {
        let needed = self.read.len() + more;
        if needed <= self.read.capacity() {
            return true;
        }
        let length = self.length.map_or(2 * needed, |length| length.min(max as u64) as usize);
        let length = length.min(max).max(needed);
        let is_granted = self.share.as_mut().is_none_or(|share| share.grow_to(length));
        if is_granted {
            self.read.reserve_exact(length - self.read.len());
        }
        is_granted
    }

    /// Returns what was read, which keeps its share of the budget until it is dropped.
    fn take_read(&mut self) -> Bytes {
        let read = mem::take(&mut self.read);
        match self.share.take() {
            Some(share) => share.attach(read),
            None => read.into(),
        }
    }

    /// Returns whether what was read contains this text.
    pub(super) fn contains(&self, text: &str) -> bool {
        memmem::find(&self.read, text.as_bytes()).is_some()
    }

    /// Makes a body that was read to its end request usage. Returns its new length and the original body;
    /// `None` if it stays as it is.
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
        // A length that was unknown stays unknown, as a fixed one would drop the trailers.
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

impl<B: Body> BufferedBody<B> {
    pub(super) fn unread(body: B) -> Self {
        Self { inner: Inner::Unread { body } }
    }

    pub(super) fn read(mut read: ReadBody<B>) -> Self {
        if !read.read.is_empty() {
            let data = read.take_read();
            read.pieces.push_front(data);
        }
        Self { inner: Inner::Read { read: Box::new(read) } }
    }
}

impl<B: Body + Default> Default for BufferedBody<B> {
    fn default() -> Self {
        Self::unread(B::default())
    }
}

impl<B> Body for BufferedBody<B>
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
            InnerProj::Unread { body } => body.poll_frame(cx),
            InnerProj::Read { read } => read.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Unread { body } => body.is_end_stream(),
            Inner::Read { read } => read.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Unread { body } => body.size_hint(),
            Inner::Read { read } => read.size_hint(),
        }
    }
}

impl<B: Body> fmt::Debug for BufferedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BufferedBody")
    }
}

/// Number of bytes that the request bodies of all clones of a layer may still hold in memory.
#[derive(Clone, Debug)]
pub(super) struct BufferBudget(Arc<AtomicUsize>);

/// What one body takes of a [`BufferBudget`].
#[derive(Debug)]
pub(super) struct BudgetShare {
    budget: BufferBudget,
    bytes: usize,
}

impl BufferBudget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Returns the share of a body of which nothing is read yet.
    pub(super) fn share(&self) -> BudgetShare {
        BudgetShare { budget: self.clone(), bytes: 0 }
    }
}

impl BudgetShare {
    /// Raises the share to this number of bytes. Returns whether that many are left.
    fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let less = |left: usize| left.checked_sub(more);
        let taken = self.budget.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if taken {
            self.bytes += more;
        }
        taken
    }

    /// Returns the bytes, which keep the share until the last clone of them is dropped.
    fn attach(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(SharedBytes { bytes, _share: self })
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

struct SharedBytes {
    bytes: Vec<u8>,
    _share: BudgetShare,
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_known_length_is_buffered_at_its_size() {
        const LENGTH: usize = 100_000;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for (max, pieces) in [(LENGTH, 1000), (1 << 20, 1000), (1 << 20, 7)] {
            let mut read = ReadBody::new(Pieces { left: LENGTH, piece: LENGTH / pieces });
            assert_eq!(read.poll_whole(max, &mut cx), Poll::Ready(true));
            assert_eq!((read.read.len(), read.read.capacity()), (LENGTH, LENGTH), "{pieces}");
        }
    }

    /// A body of zeros, in frames of one size.
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
