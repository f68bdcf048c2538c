use std::fmt;

use serde::de;

use super::super::error::AdminError;

/// Why input could not be deserialised. Serde's kinds of errors stay apart, so no message is parsed.
#[derive(Debug)]
pub(super) enum InputError {
    /// A value is not what was expected.
    Value(String),
    /// The value of the member with this name is not what was expected.
    Member(String, String),
    UnknownMember(String),
    DuplicateMember(&'static str),
    MissingMember(&'static str),
}

impl InputError {
    /// Turns the error of a value into that of the member with this name.
    pub(super) fn in_member(self, name: &str) -> Self {
        match self {
            Self::Value(expected) => Self::Member(name.to_owned(), expected),
            named => named,
        }
    }
}

impl de::Error for InputError {
    fn custom<T: fmt::Display>(expected: T) -> Self {
        Self::Value(expected.to_string())
    }

    fn unknown_field(name: &str, _: &'static [&'static str]) -> Self {
        Self::UnknownMember(name.to_owned())
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::DuplicateMember(name)
    }

    fn missing_field(name: &'static str) -> Self {
        Self::MissingMember(name)
    }
}

impl From<InputError> for AdminError {
    fn from(error: InputError) -> Self {
        match error {
            InputError::Value(expected) => Self::invalid_json(expected),
            InputError::Member(name, expected) => Self::invalid_field(&name, &expected),
            InputError::UnknownMember(name) => Self::unknown_field(&name),
            InputError::DuplicateMember(name) => Self::duplicate_field(name),
            InputError::MissingMember(name) => Self::missing_field(name),
        }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for InputError {}
