//! What OpenAI-compatible APIs have in common: the error object ([`OpenAiErrors`]), the usage of
//! streams ([`stream_usage`]) and, with the feature `proxy`, the rules by which such an upstream is
//! proxied ([`proxy_rules`]).

mod errors;
#[cfg(feature = "proxy")]
mod rules;
pub mod stream_usage;

pub use errors::OpenAiErrors;
#[cfg(feature = "proxy")]
pub use rules::proxy_rules;
