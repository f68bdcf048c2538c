//! Keys: the secret that a client presents, its hash, and the record of the issued key.
//!
//! A generated key has the form `trial-{user}-{yyyymmdd}-{random}`; see [`SecretKey::generate`].

mod claim;
mod credential;
mod generate;
mod record;
mod secret;

pub use claim::ClaimToken;
pub(crate) use credential::bearer;
pub use generate::{Checksum, InvalidUser, user_from_label};
pub use record::{DailyLimit, InvalidDailyLimit, KeyId, KeyRecord};
#[cfg(feature = "usage")]
pub(crate) use secret::looks_like_key;
pub use secret::{InvalidKey, KeyHash, SecretKey};
pub(crate) use secret::{hex, unhex};
