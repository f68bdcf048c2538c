//! Percent-decoding of queries and paths.

use crate::admin::http::error::AdminError;

/// Decodes the names and values of a query such as `a=1&b=2`, with `+` for a space.
pub(crate) fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>, AdminError> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, true).ok_or_else(|| AdminError::unknown_field("%"))?;
            let value = decode(value, true)
                .ok_or_else(|| AdminError::invalid_field(&name, "percent-encoded UTF-8"))?;
            Ok((name, value))
        })
        .collect()
}

/// Decodes percent-encoded text. Returns `None` for an invalid escape or invalid UTF-8.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once() {
        assert_eq!(decode("%E5%AF%86+%2B%252F", true).unwrap(), "密 +%2F");
        assert_eq!(decode("a+b", false).unwrap(), "a+b");
        for invalid in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(decode(invalid, false), None, "{invalid}");
        }
    }
}
