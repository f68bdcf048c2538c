//! Presets for OpenAI-compatible APIs: the error object that their clients read, and the proxy
//! rules that keep the sponsor's account out of sight.

mod errors;
#[cfg(feature = "proxy")]
mod rules;

pub use errors::OpenAiErrors;
#[cfg(feature = "proxy")]
pub use rules::proxy_rules;
