use std::{
    fs,
    path::{Path, PathBuf},
};

use super::BadSetting;

/// A secret that stands in a variable or in a file.
pub(crate) struct Secret<T> {
    pub(crate) value: Option<T>,
    pub(crate) file: Option<SecretFile<T>>,
}

/// A file that holds a secret, and may be read again.
#[derive(Clone)]
pub(crate) struct SecretFile<T> {
    /// The variable that names the file.
    pub(crate) name: &'static str,
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
}

impl<T> SecretFile<T> {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again. A pipe has given all it had the first time, and would be waited for.
    pub(crate) fn read_again(&self) -> Result<T, BadSetting> {
        if fs::metadata(&self.path).is_ok_and(|metadata| !metadata.is_file()) {
            let expected = format!("expected a regular file, got {:?}", self.path);
            return Err(BadSetting::new(self.name, expected));
        }
        self.read()
    }

    /// Reads the file, from which nothing is shown.
    pub(crate) fn read(&self) -> Result<T, BadSetting> {
        let text = fs::read_to_string(&self.path).map_err(|error| {
            let path = &self.path;
            let expected = format!("expected a readable text file, got {path:?} ({error})");
            BadSetting::new(self.name, expected)
        })?;
        // Some editors begin a file with a byte order mark.
        let text = text.trim_start_matches('\u{feff}').trim();
        (self.parse)(text).map_err(|expected| BadSetting::new(self.name, expected))
    }
}

/// One variable and its text, if it is set.
pub(super) struct Setting<'a> {
    name: &'static str,
    text: Option<&'a str>,
}

impl<'a> Setting<'a> {
    pub(super) fn new(name: &'static str, text: &'a Option<String>) -> Self {
        let text = text.as_deref().map(str::trim);
        Self { name, text: text.filter(|text| !text.is_empty()) }
    }

    /// This one if it is set, else the other.
    pub(super) fn or_else(self, other: Setting<'a>) -> Self {
        if self.text.is_some() { self } else { other }
    }

    /// The value, or `default`'s.
    pub(super) fn or<T>(
        self,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, BadSetting> {
        let text = self.text.unwrap_or(default);
        parse(text)
            .map_err(|expected| BadSetting::new(self.name, format!("{expected}, got {text:?}")))
    }

    /// The value, or `default`'s. A bad one is not shown, as it may hold a password.
    pub(super) fn secret_or<T>(
        self,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, BadSetting> {
        let text = self.text.unwrap_or(default);
        parse(text).map_err(|expected| BadSetting::new(self.name, expected))
    }

    /// The value, if it is set. A bad one is not shown.
    pub(super) fn secret<T>(
        self,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, BadSetting> {
        self.text.map(parse).transpose().map_err(|expected| BadSetting::new(self.name, expected))
    }

    /// The secret, read from the file that `file` names if that is set instead.
    pub(super) fn or_file<T>(
        self,
        file: Setting<'_>,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Secret<T>, BadSetting> {
        let Some(path) = file.text else {
            return Ok(Secret { value: self.secret(parse)?, file: None });
        };
        if self.text.is_some() {
            let both = format!("set either {} or {}, not both", self.name, file.name);
            return Err(BadSetting::new(file.name, both));
        }
        let file = SecretFile { name: file.name, path: path.into(), parse };
        Ok(Secret { value: Some(file.read()?), file: Some(file) })
    }
}
