//! Issuing keys once, however often it is asked for.

use std::{fmt, time::Duration};

use sha2::{Digest, Sha256};

use crate::key::{KeyId, KeyRecord};

/// Names a request that may come again, and what it asks for
/// (draft-ietf-httpapi-idempotency-key-header). Holds hashes only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyKey {
    name: [u8; 32],
    request: [u8; 32],
}

/// How long a store remembers that keys were issued.
pub(crate) const IDEMPOTENCY_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// What came of issuing keys once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateOutcome {
    /// They are issued.
    Issued(Vec<KeyRecord>),
    /// The same request has issued these before; nothing was done.
    Replayed(Vec<KeyId>),
    /// Another request had this name; nothing was done.
    OtherRequest,
}

/// Is told of the keys that were issued once they are, also if nobody waits for that any more.
pub type OnIssued = Box<dyn FnOnce(&[KeyRecord]) + Send>;

impl IdempotencyKey {
    /// The request that whoever has this token has given this name. `request` is all that it asks
    /// for.
    pub fn new(token_id: &str, name: &str, request: &[u8]) -> Self {
        let mut named = Sha256::new();
        named.update((token_id.len() as u64).to_le_bytes());
        named.update(token_id);
        named.update(name);
        Self { name: named.finalize().into(), request: Sha256::digest(request).into() }
    }

    /// The hash of the name and of who has given it.
    pub fn name(&self) -> [u8; 32] {
        self.name
    }

    /// The hash of what is asked for.
    pub fn request(&self) -> [u8; 32] {
        self.request
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey(…)")
    }
}
