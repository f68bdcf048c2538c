use std::fmt;

use serde::de;

use super::super::refusal::Refusal;

/// Why input could not be read. What serde tells by type stays typed, so no message is parsed.
#[derive(Debug)]
pub(super) enum InputError {
    /// A value is not what it must be.
    Value(String),
    /// The member of this name is not what it must be.
    Member(String, String),
    Unknown(String),
    Twice(&'static str),
    Missing(&'static str),
}

impl InputError {
    /// The error of a value, as that of the member that holds it.
    pub(super) fn of(self, name: &str) -> Self {
        match self {
            Self::Value(needs) => Self::Member(name.to_owned(), needs),
            named => named,
        }
    }
}

impl de::Error for InputError {
    fn custom<T: fmt::Display>(needs: T) -> Self {
        Self::Value(needs.to_string())
    }

    fn unknown_field(name: &str, _: &'static [&'static str]) -> Self {
        Self::Unknown(name.to_owned())
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::Twice(name)
    }

    fn missing_field(name: &'static str) -> Self {
        Self::Missing(name)
    }
}

impl From<InputError> for Refusal {
    fn from(error: InputError) -> Self {
        match error {
            InputError::Value(needs) => Self::invalid_json(needs),
            InputError::Member(name, needs) => Self::invalid(&name, &needs),
            InputError::Unknown(name) => Self::unknown(&name),
            InputError::Twice(name) => Self::twice(name),
            InputError::Missing(name) => Self::missing(name),
        }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for InputError {}
