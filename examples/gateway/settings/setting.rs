use std::fs;

use super::BadSetting;

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
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, BadSetting> {
        let Some(path) = file.text else {
            return self.secret(parse);
        };
        if self.text.is_some() {
            let both = format!("set either {} or {}, not both", self.name, file.name);
            return Err(BadSetting::new(file.name, both));
        }
        let text = fs::read_to_string(path).map_err(|error| {
            let expected = format!("expected a readable text file, got {path:?} ({error})");
            BadSetting::new(file.name, expected)
        })?;
        parse(text.trim()).map(Some).map_err(|expected| BadSetting::new(file.name, expected))
    }
}
