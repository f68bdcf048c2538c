//! Undoes the encoding of queries and paths.

use super::refusal::Refusal;

/// The names and values of `a=1&b=2`, percent-encoded, `+` for a space.
pub(super) fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>, Refusal> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, true).ok_or_else(|| Refusal::unknown("%"))?;
            let value = decode(value, true)
                .ok_or_else(|| Refusal::invalid(&name, "percent-encoded UTF-8"))?;
            Ok((name, value))
        })
        .collect()
}

/// Undoes percent-encoding. `None` for a broken escape or for what is not UTF-8.
pub(super) fn decode(text: &str, plus_is_space: bool) -> Option<String> {
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
        for broken in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(decode(broken, false), None, "{broken}");
        }
    }
}
