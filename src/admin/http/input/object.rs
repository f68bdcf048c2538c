//! Deserialises JSON objects and query parameters with errors that name the member.

use std::{fmt, vec};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, Error as _, IntoDeserializer, MapAccess, Visitor},
    forward_to_deserialize_any,
};
use serde_json::Value;

use crate::admin::http::error::AdminError;

/// The members of a JSON object in their order, duplicates included.
pub(super) struct Object(pub(super) Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// Deserialises members one by one, so that an error names its member.
pub(super) struct Members {
    left: vec::IntoIter<(String, Value)>,
    next: Option<(String, Value)>,
}

impl Members {
    pub(super) fn new(members: Vec<(String, Value)>) -> Self {
        Self { left: members.into_iter(), next: None }
    }
}

impl<'de> MapAccess<'de> for Members {
    type Error = InputError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, InputError> {
        self.next = self.left.next();
        let Some((name, _)) = &self.next else { return Ok(None) };
        seed.deserialize(name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, InputError> {
        let (name, value) = self.next.take().unwrap_or_default();
        seed.deserialize(Member(value)).map_err(|error| error.in_member(&name))
    }
}

/// A member's value.
struct Member(Value);

impl<'de> Deserializer<'de> for Member {
    type Error = InputError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InputError> {
        self.0.deserialize_any(visitor).map_err(InputError::custom)
    }

    /// `null` is `None`.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InputError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Why input could not be deserialised. Serde's kinds of errors stay separate, so no message is parsed.
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
