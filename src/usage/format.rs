use http::{Method, response::Parts};

use crate::store::Tokens;

/// How the responses of a family of APIs report usage.
///
/// `openai::OpenAiUsage` is one. The recorder decodes content codings; what it passes to the parser is text
/// in any chunks.
pub trait UsageFormat: Send + Sync + 'static {
    /// Returns a parser for a response with this head to a request with this method, or `None` if it
    /// reports no usage, or only repeats what was billed with another request.
    fn parser(&self, method: &Method, head: &Parts) -> Option<Box<dyn UsageParser>>;
}

/// Parser of one response, see [`UsageFormat`].
pub trait UsageParser: Send + Sync {
    /// Reads the next part of the response.
    fn read(&mut self, text: &[u8]);

    /// Returns whether the response has said that it is complete, whatever its body still does.
    fn is_over(&self) -> bool {
        false
    }

    /// Returns what was reported. `is_whole` says that the response did not break off.
    fn finish(self: Box<Self>, is_whole: bool) -> ReportedUsage;
}

/// What a response has reported; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReportedUsage {
    /// Model that served the request.
    pub model: Option<String>,
    /// Tokens, if all is known of them.
    pub tokens: Option<Tokens>,
}
