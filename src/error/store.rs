use std::{error::Error, fmt, sync::Arc};

use http::{HeaderValue, StatusCode, header};

use super::Rejection;

/// A store could not do what was asked.
///
/// Cheap to clone, as one failed commit answers many waiting requests. The source goes to logs;
/// its text never reaches a client.
#[derive(Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What kind of failure a [`StoreError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store cannot be reached, read or written now; trying again later may work.
    Unavailable,
    /// The key's record holds a value that cannot be served (a bad limit typed in by hand).
    KeyMisconfigured,
    /// A key with this text or id exists already.
    Conflict,
    /// The store does this already, and for one caller at a time.
    Busy,
    /// The store cannot do this at all.
    NotSupported,
}

impl StoreError {
    /// An error of this kind without a source.
    pub fn new(kind: StoreErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// The store is unavailable, for this reason.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::Unavailable, source: Some(Arc::from(source.into())) }
    }

    /// The key's record is not fit to be served, for this reason.
    pub fn misconfigured(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::KeyMisconfigured, source: Some(Arc::from(source.into())) }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl From<&StoreError> for Rejection {
    fn from(error: &StoreError) -> Self {
        match error.kind {
            StoreErrorKind::KeyMisconfigured => Rejection::transient(
                StatusCode::SERVICE_UNAVAILABLE,
                "server_error",
                "key_misconfigured",
                "This key's record is misconfigured; please tell whoever gave you the key.",
            ),
            StoreErrorKind::Conflict => Rejection::permanent(
                StatusCode::CONFLICT,
                "invalid_request_error",
                "key_exists",
                "This key exists already.",
            ),
            StoreErrorKind::Busy => Rejection::transient(
                StatusCode::CONFLICT,
                "invalid_request_error",
                "in_progress",
                "This is under way already; please try again once it is over.",
            )
            .header(header::RETRY_AFTER, HeaderValue::from_static("5")),
            StoreErrorKind::NotSupported => Rejection::permanent(
                StatusCode::NOT_IMPLEMENTED,
                "invalid_request_error",
                "not_supported",
                "The quota store cannot do this.",
            ),
            StoreErrorKind::Unavailable => Rejection::transient(
                StatusCode::SERVICE_UNAVAILABLE,
                "server_error",
                "store_unavailable",
                "The quota store is unavailable; please try again in a moment.",
            )
            .header(header::RETRY_AFTER, HeaderValue::from_static("1")),
        }
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
            StoreErrorKind::Conflict => "key exists already",
            StoreErrorKind::Busy => "under way already",
            StoreErrorKind::NotSupported => "not supported by the store",
        })
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}
