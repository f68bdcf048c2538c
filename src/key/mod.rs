//! Keys: the secret that a client presents, its hash, and the record of the issued key.
//!
//! A generated key has the form `trial-{user}-{yyyymmdd}-{random}`; see [`SecretKey::generate`].

mod claim;
mod generate;
mod id;
mod limit;
mod limits;
mod record;
mod secret;

pub use claim::ClaimToken;
pub use generate::{Checksum, InvalidUser, user_from_label};
pub use id::KeyId;
pub use limit::{InvalidLimit, Limit};
#[cfg(any(feature = "admin", feature = "engine"))]
pub(crate) use limits::DefaultLimits;
#[cfg(feature = "admin")]
pub(crate) use limits::LIMIT_NAMES;
pub(crate) use limits::LimitChanges;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use limits::null_limits;
pub use limits::{KeyLimit, KeyLimits};
pub use record::{InvalidKeyVersion, KeyPatch, KeyRecord, KeyVersion};
#[cfg(any(feature = "admin", feature = "auth"))]
pub(crate) use secret::bearer;
#[cfg(feature = "usage")]
pub(crate) use secret::looks_like_key;
pub use secret::{InvalidKey, KeyHash, SecretKey};
pub(crate) use secret::{hex, unhex};
