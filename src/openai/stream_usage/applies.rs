use http::request::Parts;

/// Says which requests may be changed. A closure `Fn(&Parts) -> bool` is one.
pub trait AppliesTo {
    /// Whether this request's body is one of a chat. Its method, content coding and JSON are judged besides.
    fn applies_to(&self, request: &Parts) -> bool;
}

impl<F> AppliesTo for F
where
    F: Fn(&Parts) -> bool,
{
    fn applies_to(&self, request: &Parts) -> bool {
        self(request)
    }
}

/// The default: paths that end with `/chat/completions`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatCompletions;

impl AppliesTo for ChatCompletions {
    fn applies_to(&self, request: &Parts) -> bool {
        request.uri.path().ends_with("/chat/completions")
    }
}
