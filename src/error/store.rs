use std::{error::Error, fmt, sync::Arc};

use super::{Rejection, catalog};

/// An error of a store.
///
/// It is cheap to clone, as one failed commit fails many waiting requests. The source goes to logs;
/// its text never reaches a client.
#[derive(Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kind of a [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store cannot be reached, read or written now; a later attempt may succeed.
    Unavailable,
    /// The key's record holds an invalid value (a bad limit typed in by hand).
    KeyMisconfigured,
    /// A key with this text or id already exists.
    Conflict,
    /// The operation is already in progress and does not run twice at a time.
    Busy,
    /// The store does not support the operation.
    NotSupported,
}

impl StoreError {
    /// Creates an error of this kind without a source.
    pub fn new(kind: StoreErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// Creates an [`Unavailable`](StoreErrorKind::Unavailable) error with this source.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::Unavailable, source: Some(Arc::from(source.into())) }
    }

    /// Creates a [`KeyMisconfigured`](StoreErrorKind::KeyMisconfigured) error with this source.
    pub fn misconfigured(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::KeyMisconfigured, source: Some(Arc::from(source.into())) }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl From<&StoreError> for Rejection {
    fn from(error: &StoreError) -> Self {
        let code = match error.kind {
            StoreErrorKind::Unavailable => catalog::STORE_UNAVAILABLE,
            StoreErrorKind::KeyMisconfigured => catalog::KEY_MISCONFIGURED,
            StoreErrorKind::Conflict => catalog::KEY_EXISTS,
            StoreErrorKind::Busy => catalog::IN_PROGRESS,
            StoreErrorKind::NotSupported => catalog::NOT_SUPPORTED,
        };
        code.rejection().with_reason(error.clone())
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreError")
            .field("kind", &self.kind)
            .field("source", &self.source)
            .finish()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Unavailable => "store unavailable",
            StoreErrorKind::KeyMisconfigured => "key misconfigured",
            StoreErrorKind::Conflict => "key already exists",
            StoreErrorKind::Busy => "already in progress",
            StoreErrorKind::NotSupported => "not supported by the store",
        })
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}
