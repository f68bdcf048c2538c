//! Tower middleware for issued keys, exact daily quotas and a usage ledger.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
// What two rooms share is idle where only one of them is built.
#![cfg_attr(not(feature = "full"), allow(dead_code, unused_imports))]

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "auth")]
pub mod auth;
pub mod body;
pub mod clock;
pub mod error;
pub mod key;
#[cfg(feature = "openai")]
pub mod openai;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "quota")]
pub mod quota;
pub mod store;
#[cfg(feature = "usage")]
pub mod usage;
