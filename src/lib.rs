//! Tower middleware for issued keys, exact daily quotas and a usage ledger.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod body;
pub mod clock;
pub mod error;
pub mod key;
pub mod store;
