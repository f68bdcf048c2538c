//! JSON schemas of types from other modules.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::view::Timestamp;
use crate::{
    clock::Day,
    key::{DailyLimit, KeyId},
    store::{KeyState, KeyVersion, PageCursor},
};

macro_rules! schema {
    ($type:ident, $schema:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

schema!(KeyId, {"type": "string", "examples": ["key_0123456789abcdef"]});
schema!(DailyLimit, {"type": "integer", "minimum": 0, "maximum": DailyLimit::MAX});
schema!(PageCursor, {"anyOf": [{"type": "integer"}, {"type": "string"}]});
schema!(KeyVersion, {"type": "string", "pattern": "^[0-9a-f]{32}$"});
schema!(KeyState, {"type": "string", "enum": KeyState::ALL.map(KeyState::as_str)});
schema!(Day, {"type": "string", "format": "date", "examples": ["2026-11-22"]});
schema!(Timestamp, {"type": "string", "format": "date-time", "examples": ["2026-11-22T08:30:00Z"]});
