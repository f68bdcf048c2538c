use std::fmt;

use sha2::{Digest, Sha256};

use super::{InvalidKey, KeyHash, generate::push_random};

/// Secret token in a claim link, with which the key can be claimed once. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimToken(Box<str>);

/// 22 characters of base 62 carry 130.9 bits.
const LENGTH: usize = 22;

impl ClaimToken {
    /// Generates a random token.
    pub fn generate() -> Self {
        let mut text = String::with_capacity(LENGTH);
        push_random(&mut text, LENGTH);
        Self(text.into())
    }

    /// Parses a token: 22 ASCII letters and digits.
    ///
    /// # Errors
    ///
    /// The text has another form.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let is_valid =
            text.len() == LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_valid { Ok(Self(text.into())) } else { Err(InvalidKey) }
    }

    /// Returns the token in clear, for the response that hands it out.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the SHA-256 of the token, which is what a store keeps.
    pub fn hash(&self) -> KeyHash {
        KeyHash::from_bytes(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl fmt::Debug for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimToken(…)")
    }
}
