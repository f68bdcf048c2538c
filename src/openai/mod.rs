//! Presets for OpenAI-compatible APIs: the error object ([`OpenAiErrors`]), also as Anthropic's clients
//! read it ([`AnthropicErrorsLayer`]), the usage of streams ([`stream_usage`]); with the feature `usage`
//! the usage that responses report ([`OpenAiUsage`]), and with the feature `proxy` the rules for proxying such
//! an upstream ([`proxy_rules`]).

mod anthropic;
mod errors;
#[cfg(feature = "proxy")]
mod rules;
pub mod stream_usage;
#[cfg(feature = "usage")]
mod usage;

pub use anthropic::{
    AnthropicErrors, AnthropicErrorsBody, AnthropicErrorsFuture, AnthropicErrorsLayer,
};
pub use errors::OpenAiErrors;
#[cfg(feature = "proxy")]
pub use rules::proxy_rules;
#[cfg(feature = "usage")]
pub use usage::OpenAiUsage;
