use std::{
    fmt,
    hash::{Hash, Hasher},
};

use sha2::{Digest, Sha256};

/// Key in clear, as a client presents it. `Debug` does not show it and there is no `Display`.
///
/// ```
/// use tower_quota::key::SecretKey;
///
/// let key = SecretKey::parse("trial-key-manual-123")?;
/// assert_eq!(format!("{key:?}"), "SecretKey(…)");
/// assert_eq!(key.masked(), "trial-key-…");
/// # Ok::<(), tower_quota::key::InvalidKey>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(Box<str>);

/// SHA-256 of a key, which is what a store keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

/// Error for a text that cannot be a key: it is empty, longer than 256 bytes, or not visible ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidKey;

/// Maximum length of a key, in bytes.
const MAX_LENGTH: usize = 256;

impl SecretKey {
    /// Parses a key: 1 to 256 bytes of visible ASCII. Keys that were chosen by hand are valid, too.
    ///
    /// # Errors
    ///
    /// The text is empty, longer, or has other characters.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        Self::from_text(text.into()).map_err(|_| InvalidKey)
    }

    /// Makes a text a key, or returns it if it cannot be one.
    pub(crate) fn from_text(text: Box<str>) -> Result<Self, Box<str>> {
        // Without an early exit the compiler compares many bytes at once.
        let is_visible = text.bytes().fold(true, |all, byte| all & byte.is_ascii_graphic());
        match (1..=MAX_LENGTH).contains(&text.len()) && is_visible {
            true => Ok(Self(text)),
            false => Err(text),
        }
    }

    /// Creates a key from any text, such as one that was typed into a table by hand. A text that
    /// [`parse`](Self::parse) rejects never matches a presented key.
    pub(crate) fn new_unchecked(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the key in clear, for the response that hands it out.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the hash of the key.
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.0.as_bytes()).into())
    }

    /// Returns the key with its secret part left out: its first two hyphenated parts and, if it is
    /// long, its last four characters. At least eight characters are hidden.
    pub fn masked(&self) -> String {
        let text = &*self.0;
        // Not a valid key; it was typed into a table by hand.
        if !text.is_ascii() {
            return "…".to_owned();
        }
        let head = text.match_indices('-').take(2).last().map_or(0, |(at, _)| at + 1);
        let head = if text.len() - head >= 8 { head } else { 0 };
        let tail = if text.len() - head >= 16 { 4 } else { 0 };
        format!("{}…{}", &text[..head], &text[text.len() - tail..])
    }
}

/// Whether a value that should be something else looks like a key of this crate or of a provider.
#[cfg(feature = "usage")]
pub(crate) fn looks_like_key(text: &str) -> bool {
    ["trial-", "sk-"].into_iter().any(|prefix| {
        text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    })
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl KeyHash {
    /// Formats the hash as 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// Parses a hash of 64 hexadecimal digits, in any case.
    pub fn from_hex(digits: &str) -> Option<Self> {
        unhex(digits)?.try_into().ok().map(Self)
    }

    /// Returns the 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Creates a hash from its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Returns the token of `Bearer` credentials (RFC 6750, section 2.1; the scheme is
/// case-insensitive), or `None` for another scheme.
#[cfg(any(feature = "admin", feature = "auth"))]
pub(crate) fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.trim_ascii().split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Formats bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parses an even number of hexadecimal digits, in any case.
pub(crate) fn unhex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Hashes the first 8 bytes, which are as evenly distributed as all 32.
impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key is 1 to 256 visible ASCII characters")
    }
}

impl std::error::Error for InvalidKey {}
