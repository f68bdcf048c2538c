use std::fmt;

use sha2::{Digest, Sha256};

/// A key in clear, as a holder presents it. `Debug` hides it and there is no `Display`.
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

/// SHA-256 of a key: what a store keeps.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

/// The text cannot be a key: empty, longer than 256 bytes, or not visible ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKey;

const LONGEST: usize = 256;

impl SecretKey {
    /// Takes any visible ASCII text of 1 to 256 bytes, as keys may be chosen by hand.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > LONGEST || !visible {
            return Err(InvalidKey);
        }
        Ok(Self(text.into()))
    }

    pub(super) fn generated(text: String) -> Self {
        Self(text.into())
    }

    /// A text typed into a store by hand. One that is no valid key can never be presented.
    #[cfg(feature = "sqlite")]
    pub(crate) fn new_unchecked(text: &str) -> Self {
        Self(text.into())
    }

    /// The key in clear, for the one answer that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The key's hash.
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The key's name for people: its first two words and, of a long key, its last four
    /// characters. At least eight characters stay hidden.
    pub fn masked(&self) -> String {
        let text = &*self.0;
        // Typed into a store by hand; it can never be presented.
        if !text.is_ascii() {
            return "…".to_owned();
        }
        let head = text.match_indices('-').take(2).last().map_or(0, |(at, _)| at + 1);
        let head = if text.len() - head >= 8 { head } else { 0 };
        let tail = if text.len() - head >= 16 { 4 } else { 0 };
        format!("{}…{}", &text[..head], &text[text.len() - tail..])
    }
}

/// Whether a text that somebody gave for something else may be a key: it begins as issued keys do, or
/// as those of providers.
#[cfg(feature = "usage")]
pub(crate) fn looks_like_key(text: &str) -> bool {
    let begins =
        |start: &str| text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start));
    ["trial-", "sk-"].into_iter().any(begins)
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl KeyHash {
    /// The hash as 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// The hash of 64 hexadecimal digits, in any case.
    pub fn from_hex(digits: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            let two = digits.get(2 * at..2 * at + 2)?;
            let plain = two.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = if plain { u8::from_str_radix(two, 16).ok()? } else { return None };
        }
        Some(Self(bytes))
    }

    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A hash that was stored before.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
