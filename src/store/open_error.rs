use std::{error::Error, fmt, io, path::Path};

/// Error for a store that cannot be opened.
#[derive(Debug)]
pub struct OpenError {
    kind: OpenErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Kind of an [`OpenError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenErrorKind {
    /// Requests or changes are provably missing, because a file was damaged or replaced by an older
    /// one, or a database by an older one. Put the right one back, or open the store without them by
    /// `accept_loss` of its options.
    Loss,
    /// The disk is full, another process holds SQLite's write lock, or the database server does not respond.
    /// Opening may succeed later without intervention.
    Temporary,
    /// Any other failure.
    Other,
}

impl OpenError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { kind: OpenErrorKind::Other, message: message.into(), source: None }
    }

    pub(crate) fn loss(message: String) -> Self {
        Self { kind: OpenErrorKind::Loss, ..Self::new(message) }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> OpenErrorKind {
        self.kind
    }

    pub(crate) fn because(
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { source: Some(source.into()), ..Self::new(message) }
    }

    /// The file at `path` cannot be opened, locked, …
    pub(crate) fn cannot(
        what: &str,
        path: &Path,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::because(format!("{} cannot be {what}", path.display()), source)
    }

    /// Changes the kind to [`OpenErrorKind::Temporary`] if the source is temporary.
    pub(crate) fn temporary_if(
        self,
        is_temporary: impl FnOnce(&(dyn Error + Send + Sync + 'static)) -> bool,
    ) -> Self {
        let is_temporary = self.source.as_deref().is_some_and(is_temporary);
        if is_temporary { Self { kind: OpenErrorKind::Temporary, ..self } } else { self }
    }

    pub(crate) fn thread(source: io::Error) -> Self {
        Self::because("the writer thread could not be started", source)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}
