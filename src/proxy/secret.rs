use std::{fmt, sync::Arc};

use http::HeaderValue;

/// The text that must not reach a client. `Debug` hides it.
#[derive(Clone)]
pub(super) struct Secret(Arc<[u8]>);

impl Secret {
    /// The secret part of an `Authorization` value: what follows the scheme.
    pub(super) fn of(credential: &HeaderValue) -> Option<Self> {
        let text = credential.as_bytes().trim_ascii();
        let start = text.iter().position(|byte| *byte == b' ').map_or(0, |at| at + 1);
        let secret = text[start..].trim_ascii();
        (!secret.is_empty()).then(|| Self(secret.into()))
    }

    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        self.find(text).is_some()
    }

    fn find(&self, text: &[u8]) -> Option<usize> {
        text.windows(self.0.len()).position(|window| *window == *self.0)
    }

    /// Overwrites the secret with asterisks wherever it stands.
    pub(super) fn mask(&self, text: &mut [u8]) {
        let mut rest = text;
        while let Some(at) = self.find(rest) {
            let (found, tail) = rest[at..].split_at_mut(self.0.len());
            found.fill(b'*');
            rest = tail;
        }
    }

    /// How many bytes at the end of `text` may be the beginning of the secret.
    pub(super) fn begun(&self, text: &[u8]) -> usize {
        let begins = |length: &usize| text.ends_with(&self.0[..*length]);
        (1..self.0.len()).rev().find(begins).unwrap_or(0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
