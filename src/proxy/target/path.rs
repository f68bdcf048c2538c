use std::borrow::Cow;

/// The error of an invalid path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathError {
    Start,
    Control,
    Backslash,
    EmptySegment,
    DotSegment,
    Escape,
    Depth,
}

/// Maximum number of nested percent-encodings of a path.
const MAX_DECODINGS: usize = 4;

impl PathError {
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Start => "The path must start with a slash.",
            Self::Control => "The path holds a control character.",
            Self::Backslash => "The path holds a backslash.",
            Self::EmptySegment => {
                "The path holds an empty segment (//). Take the slash off the end of your base URL."
            }
            Self::DotSegment => "The path holds a dot segment.",
            Self::Escape => "The path holds an invalid percent-encoding.",
            Self::Depth => "The path is percent-encoded too many times over.",
        }
    }
}

/// Validates a path in every spelling that repeated decoding yields, as it is unknown how often the
/// servers behind decode it. Escapes must be valid (RFC 3986, section 2.1) as sent; in decoded text a
/// lone `%` is a character like any other. Decoded text must be UTF-8, which rules out overlong
/// encodings.
pub(super) fn check(path: &str) -> Result<(), PathError> {
    if is_plain(path.as_bytes()) {
        return Ok(());
    }
    if !escapes_are_valid(path.as_bytes()) {
        return Err(PathError::Escape);
    }
    check_decoded(path)?;
    let mut text = Cow::Borrowed(path);
    for _ in 0..MAX_DECODINGS {
        let Some(decoded) = decode(text.as_bytes()) else {
            return Ok(());
        };
        text = String::from_utf8(decoded).map_err(|_| PathError::Escape)?.into();
        check_decoded(&text)?;
    }
    match decode(text.as_bytes()) {
        Some(_) => Err(PathError::Depth),
        None => Ok(()),
    }
}

/// Whether a path holds letters, digits and single slashes only, as most do.
fn is_plain(path: &[u8]) -> bool {
    let mut previous = None;
    path.first() == Some(&b'/')
        && path.iter().all(|&byte| {
            let is_plain = match byte {
                b'/' => previous != Some(b'/'),
                _ => byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_',
            };
            previous = Some(byte);
            is_plain
        })
}

fn check_decoded(path: &str) -> Result<(), PathError> {
    let Some(relative) = path.strip_prefix('/') else {
        return Err(PathError::Start);
    };
    if path.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    if path.contains('\\') {
        return Err(PathError::Backslash);
    }
    if path.contains("//") {
        return Err(PathError::EmptySegment);
    }
    let is_dots = |segment: &str| {
        let name = segment.split(';').next();
        matches!(name, Some("." | ".."))
    };
    match relative.split('/').any(is_dots) {
        true => Err(PathError::DotSegment),
        false => Ok(()),
    }
}

fn escapes_are_valid(path: &[u8]) -> bool {
    let mut rest = path;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        if escape(&rest[at..]).is_none() {
            return false;
        }
        rest = &rest[at + 3..];
    }
    true
}

/// Returns the byte that the escape at the start of `text` stands for.
fn escape(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
}

/// Decodes one level of percent-encoding, or returns `None` if the text has none.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        match escape(rest) {
            Some(byte) => {
                decoded.push(byte);
                rest = &rest[3..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    (decoded.len() < text.len()).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_paths_are_accepted() {
        for path in [
            "/",
            "/v1/models",
            "/v1/models/",
            "/v1/models/deepseek-ai%2Fdeepseek",
            "/v1/a..b/.well-known/...",
            "/v1/100%25",
            "/v1/100%25zz",
            "/v1/%E6%A8%A1%E5%9E%8B",
            "/v1/模型",
            "/v1/a;b=c",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn invalid_paths_are_rejected_in_every_encoding() {
        for (path, error) in [
            ("*", PathError::Start),
            ("v1", PathError::Start),
            ("//v1", PathError::EmptySegment),
            ("/v1//x", PathError::EmptySegment),
            ("/v1/%2fx", PathError::EmptySegment),
            ("/v1/a%2F%2Fb", PathError::EmptySegment),
            ("/v1/%252fx", PathError::EmptySegment),
            ("/v1/../admin", PathError::DotSegment),
            ("/v1/.", PathError::DotSegment),
            ("/v1/..;x/admin", PathError::DotSegment),
            ("/v1/%2e%2E/admin", PathError::DotSegment),
            ("/v1/.%2e/admin", PathError::DotSegment),
            ("/v1/%252e%252e/admin", PathError::DotSegment),
            ("/v1/%25252e/admin", PathError::DotSegment),
            ("/v1/%25%32%65/admin", PathError::DotSegment),
            ("/v1/a%2F..%2Fb", PathError::DotSegment),
            ("/v1/..\\admin", PathError::Backslash),
            ("/v1/..%5cadmin", PathError::Backslash),
            ("/v1/..%255cadmin", PathError::Backslash),
            ("/v1/%0d%0aHost:x", PathError::Control),
            ("/v1/%00", PathError::Control),
            ("/v1/%257f", PathError::Control),
            ("/v1/%", PathError::Escape),
            ("/v1/%2", PathError::Escape),
            ("/v1/%u002e", PathError::Escape),
            ("/v1/%%32%65", PathError::Escape),
            ("/v1/%c0%ae%c0%ae/x", PathError::Escape),
            ("/v1/%2525252525", PathError::Depth),
        ] {
            assert_eq!(check(path), Err(error), "{path}");
        }
    }
}
