//! Lock of a file that belongs to one process at a time.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

use super::open_error::OpenError;

/// File that is locked until this is dropped.
///
/// The lock ends with an explicit call, not with the descriptor: a process that this one is starting at the moment has
/// a copy of each descriptor until it executes its program, and the lock would be held as long.
#[derive(Debug)]
pub(crate) struct ProcessLock(File);

impl ProcessLock {
    /// Locks an open file. `in_use` is the message if another process has locked it.
    pub(crate) fn take(
        file: File,
        path: &Path,
        in_use: impl FnOnce() -> String,
    ) -> Result<Self, OpenError> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::new(in_use())),
            Err(TryLockError::Error(error)) => Err(OpenError::cannot("locked", path, error)),
        }
    }

    /// Creates a lock file, unless it exists, and locks it. Only its owner can access it, since a process that can read
    /// the file can hold the lock and so prevent the store from being opened.
    pub(crate) fn create(path: &Path, in_use: impl FnOnce() -> String) -> Result<Self, OpenError> {
        let file = open(path).map_err(|error| OpenError::cannot("opened", path, error))?;
        Self::take(file, path, in_use)
    }

    /// Holds a file that is not locked, where a lock would conflict with others on it.
    #[cfg(feature = "sqlite")]
    pub(crate) fn without_lock(file: File) -> Self {
        Self(file)
    }

    /// Returns whether another process has locked this file. It is locked only for an instant.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_held(file: &File) -> bool {
        match file.try_lock_shared() {
            Ok(()) => {
                let _ = file.unlock();
                false
            }
            Err(error) => matches!(error, TryLockError::WouldBlock),
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        // If this fails, the lock ends with the descriptor.
        let _ = self.0.unlock();
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    restrict(&file, path)?;
    Ok(file)
}

/// Removes the access of others to a lock file that an earlier version has created.
#[cfg(unix)]
fn restrict(file: &File, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o600);
        if let Err(error) = file.set_permissions(permissions) {
            tracing::warn!(%error, file = %path.display(), "setting the mode of the lock file failed: other users may hold the lock");
        }
    }
    Ok(())
}
