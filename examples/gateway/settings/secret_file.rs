//! Secrets in files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::BadSetting;

/// A file that contains a secret and may be read again.
#[derive(Clone)]
pub(crate) struct SecretFile<T> {
    /// The variable that names the file.
    pub(crate) name: String,
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
    /// The value at the start.
    pub(super) value: T,
}

/// Returns the parser of a setting that names a file with a secret, which `parse` parses.
pub(super) fn secret_file<T>(
    parse: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<SecretFile<T>, String> + Clone {
    move |path| {
        let value = read(Path::new(path), parse)?;
        Ok(SecretFile { name: String::new(), path: path.into(), parse, value })
    }
}

impl<T> SecretFile<T> {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again. Fails if it is a pipe, which was consumed the first time and would block.
    pub(crate) fn read_again(&self) -> Result<T, BadSetting> {
        let value = match fs::metadata(&self.path) {
            Ok(metadata) if !metadata.is_file() => {
                Err(format!("expected a regular file, got {:?}", self.path))
            }
            _ => read(&self.path, self.parse),
        };
        value.map_err(|expected| BadSetting::new(&self.name, expected))
    }
}

/// Reads and parses a file. Errors never contain its text.
fn read<T>(path: &Path, parse: fn(&str) -> Result<T, String>) -> Result<T, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("expected a readable text file, got {path:?} ({error})"))?;
    // Some editors write a byte order mark at the start.
    parse(text.trim_start_matches('\u{feff}').trim())
}
