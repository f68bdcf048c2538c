use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use crate::error::StoreError;

/// Future returned by the methods of stores.
///
/// It is a named type, so that the store traits are object safe and the futures of the layers can
/// be named. Only a result that is not ready at once is boxed.
pub struct StoreFuture<T> {
    /// Never locked: the mutex only makes the future `Sync`.
    state: Mutex<State<T>>,
}

enum State<T> {
    Ready(Option<Result<T, StoreError>>),
    Pending(Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>),
}

impl<T> StoreFuture<T> {
    fn new(state: State<T>) -> Self {
        Self { state: Mutex::new(state) }
    }

    fn state(&mut self) -> &mut State<T> {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a future that is ready with this result.
    pub fn ready(result: Result<T, StoreError>) -> Self {
        Self::new(State::Ready(Some(result)))
    }

    /// Creates a future that boxes and polls another one.
    pub fn pending(future: impl Future<Output = Result<T, StoreError>> + Send + 'static) -> Self {
        Self::new(State::Pending(Box::pin(future)))
    }

    /// Applies a function to the value once it is ready.
    pub fn map<U>(self, f: impl FnOnce(T) -> U + Send + 'static) -> StoreFuture<U>
    where
        T: Send + 'static,
    {
        match self.now_or_never() {
            Ok(result) => StoreFuture::ready(result.map(f)),
            Err(future) => StoreFuture::pending(async move { future.await.map(f) }),
        }
    }

    /// Returns the result if it was ready from the start, once.
    pub(crate) fn take_ready(&mut self) -> Option<Result<T, StoreError>> {
        match self.state() {
            State::Ready(result) => result.take(),
            State::Pending(_) => None,
        }
    }

    /// Returns the result if it was ready from the start, or else the future itself.
    pub fn now_or_never(mut self) -> Result<Result<T, StoreError>, Self> {
        self.take_ready().ok_or(self)
    }
}

impl<T> Unpin for StoreFuture<T> {}

impl<T> Future for StoreFuture<T> {
    type Output = Result<T, StoreError>;

    /// # Panics
    ///
    /// If it is polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.state() {
            State::Ready(result) => {
                Poll::Ready(result.take().expect("`StoreFuture` polled after it was ready"))
            }
            State::Pending(future) => future.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for StoreFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreFuture")
    }
}
