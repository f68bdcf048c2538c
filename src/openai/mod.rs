//! What OpenAI-compatible APIs have in common: the error object ([`OpenAiErrors`]), in the form that
//! Anthropic's clients read where the request is theirs ([`AnthropicErrorsLayer`]), the usage of
//! streams ([`stream_usage`]) and, with the feature `proxy`, the rules by which such an upstream is
//! proxied ([`proxy_rules`]).

mod anthropic;
mod errors;
#[cfg(feature = "proxy")]
mod rules;
pub mod stream_usage;

pub use anthropic::{AnthropicErrors, AnthropicErrorsFuture, AnthropicErrorsLayer};
pub use errors::OpenAiErrors;
#[cfg(feature = "proxy")]
pub use rules::proxy_rules;
