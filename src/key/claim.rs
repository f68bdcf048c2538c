use std::fmt;

use sha2::{Digest, Sha256};

use super::{InvalidKey, KeyHash, generate::push_random};

/// What a claim link holds: whoever has it gets the key, once. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimToken(Box<str>);

/// 22 characters of base 62 carry 130.9 bits.
const LENGTH: usize = 22;

impl ClaimToken {
    /// A new random token.
    pub fn generate() -> Self {
        let mut text = String::with_capacity(LENGTH);
        push_random(&mut text, LENGTH);
        Self(text.into())
    }

    /// Takes a text of the form that [`generate`](Self::generate) gives.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let plain = text.len() == LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if plain { Ok(Self(text.into())) } else { Err(InvalidKey) }
    }

    /// The token in clear, for the one answer that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The token's SHA-256: what a store keeps.
    pub fn hash(&self) -> KeyHash {
        KeyHash::from_bytes(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl fmt::Debug for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimToken(…)")
    }
}
