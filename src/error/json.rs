//! JSON of rejections.

use std::fmt::{self, Write};

#[cfg(any(feature = "admin", feature = "openai", feature = "usage"))]
use bytes::Bytes;

/// A text as a string of JSON (RFC 8259, section 7).
pub(super) struct JsonString<'a>(pub(super) &'a str);

impl fmt::Display for JsonString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\0'..='\x1f' => write!(f, "\\u{:04x}", u32::from(character))?,
                _ => f.write_char(character)?,
            }
        }
        f.write_char('"')
    }
}

/// Serialises a value that cannot fail to serialise, such as a plain struct of strings and numbers.
#[cfg(any(feature = "admin", feature = "openai", feature = "usage"))]
pub(crate) fn json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_read_as_it_was_written() {
        let text: String = ('\0'..='\u{ff}').chain("\u{2028}用户😀".chars()).collect();
        for text in ["", "a \"quoted\" \\ text", &text] {
            let json = JsonString(text).to_string();
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text, "{json}");
        }
    }
}
