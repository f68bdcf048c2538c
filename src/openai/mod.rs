//! Presets for OpenAI-compatible APIs: the error object ([`OpenAiErrors`]), also as Anthropic's clients
//! read it ([`AnthropicErrorsLayer`]), the rate limit headers ([`OpenAiRateHeaders`]), the usage of streams ([`stream_usage`]); with the feature `usage`
//! the usage that responses report ([`OpenAiUsage`]), and with the feature `proxy` the rules for proxying such
//! an upstream ([`proxy_rules`]).

mod anthropic;
mod errors;
mod rate_headers;
#[cfg(feature = "proxy")]
mod rules;
pub mod stream_usage;
#[cfg(feature = "usage")]
mod usage;

pub use anthropic::{
    AnthropicErrors, AnthropicErrorsBody, AnthropicErrorsFuture, AnthropicErrorsLayer,
};
pub use errors::OpenAiErrors;
pub use rate_headers::OpenAiRateHeaders;
#[cfg(feature = "proxy")]
pub use rules::proxy_rules;
#[cfg(feature = "usage")]
pub use usage::OpenAiUsage;
