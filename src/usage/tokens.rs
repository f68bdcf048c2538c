use http::{header, response::Parts};
use serde::Deserialize;

use super::{
    Tokens,
    scan::{self, MemberScanner},
};

const LONGEST_USAGE: usize = 4096;
const LONGEST_MODEL: usize = 256;
/// More than this in one answer is nonsense that must not spoil the sums.
const MOST_TOKENS: u64 = 1_000_000_000_000;

/// Reads the model and the tokens that an OpenAI-compatible answer tells, JSON or server-sent
/// events. Of several usage objects the last counts, as streams repeat it with growing numbers.
#[derive(Debug, Default)]
pub(super) struct AnswerScanner {
    usage: Option<MemberScanner>,
    model_scanner: Option<MemberScanner>,
    model: Option<String>,
    tokens: Option<Tokens>,
}

/// The names of `/v1/chat/completions` and `/v1/embeddings`, and those of `/v1/responses`.
#[derive(Deserialize)]
struct Usage {
    #[serde(alias = "input_tokens")]
    prompt_tokens: u64,
    #[serde(alias = "output_tokens", default)]
    completion_tokens: u64,
    total_tokens: Option<u64>,
    #[serde(alias = "input_tokens_details")]
    prompt_tokens_details: Option<Details>,
    #[serde(alias = "output_tokens_details")]
    completion_tokens_details: Option<Details>,
    /// DeepSeek's name for cached tokens.
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

impl AnswerScanner {
    /// A scanner for answers that can be read, or one that reads nothing.
    pub(super) fn for_head(head: &Parts) -> Self {
        if !head.status.is_success() || !is_readable(head) {
            return Self::default();
        }
        Self {
            usage: Some(MemberScanner::new(scan::usage(), LONGEST_USAGE)),
            model_scanner: Some(MemberScanner::new(scan::model(), LONGEST_MODEL)),
            ..Self::default()
        }
    }

    pub(super) fn scan(&mut self, chunk: &[u8]) {
        if let Some(scanner) = &mut self.usage {
            scanner.scan(chunk, |value| {
                if let Ok(usage) = serde_json::from_slice::<Usage>(value) {
                    self.tokens = Some(usage.into());
                }
            });
        }
        if let Some(scanner) = &mut self.model_scanner {
            scanner.scan(chunk, |value| {
                if self.model.is_none() {
                    self.model = serde_json::from_slice(value).ok();
                }
            });
        }
        if self.model.is_some() {
            self.model_scanner = None;
        }
    }

    pub(super) fn finish(&mut self) -> (Option<String>, Option<Tokens>) {
        (self.model.take(), self.tokens.take())
    }
}

impl From<Usage> for Tokens {
    fn from(usage: Usage) -> Self {
        let [prompt, completion] =
            [usage.prompt_tokens, usage.completion_tokens].map(|told| told.min(MOST_TOKENS));
        let total = usage.total_tokens.map_or(prompt + completion, |told| told.min(MOST_TOKENS));
        let cached = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
        let reasoning =
            usage.completion_tokens_details.and_then(|details| details.reasoning_tokens);
        Self {
            // A part is no more than the whole.
            cached: cached.or(usage.prompt_cache_hit_tokens).map(|told| told.min(prompt)),
            reasoning: reasoning.map(|told| told.min(completion)),
            ..Self::new(prompt, completion, total)
        }
    }
}

fn is_readable(head: &Parts) -> bool {
    let plain = head
        .headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let text = head.headers.get(header::CONTENT_TYPE).is_none_or(|kind| {
        let is = |name: &str| {
            let begin = kind.as_bytes().get(..name.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(name.as_bytes()))
        };
        is("application/json") || is("text/event-stream")
    });
    plain && text
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        "data: {\"model\":\"deepseek-chat\",\"choices\":[{\"delta\":{\"content\":",
        "\"say \\\"usage\\\":{\\\"prompt_tokens\\\":9}\"}}],\"usage\":null}\n\n",
        "data: {\"model\":\"x\",\"choices\":[],\"usage\": {\"prompt_tokens\":11,",
        "\"completion_tokens\":7,\"total_tokens\":18,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n",
        "data: [DONE]\n\n",
    );

    fn scan(chunks: &[&[u8]]) -> (Option<String>, Option<Tokens>) {
        let head = http::Response::new(()).into_parts().0;
        let mut scanner = AnswerScanner::for_head(&head);
        chunks.iter().for_each(|chunk| scanner.scan(chunk));
        scanner.finish()
    }

    fn told() -> Tokens {
        Tokens { cached: Some(4), ..Tokens::new(11, 7, 18) }
    }

    #[test]
    fn a_stream_is_read_the_same_at_every_split_into_three() {
        let expected = (Some("deepseek-chat".to_owned()), Some(told()));
        let bytes = STREAM.as_bytes();
        for first in 0..bytes.len() {
            for second in (first..bytes.len()).step_by(7) {
                let chunks = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(scan(&chunks), expected, "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn a_stream_is_read_the_same_byte_by_byte() {
        let chunks: Vec<&[u8]> = STREAM.as_bytes().chunks(1).collect();
        assert_eq!(scan(&chunks).1, Some(told()));
    }

    #[test]
    fn the_shapes_of_responses_and_embeddings_are_read() {
        let responses =
            br#"{"model":"m","usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}"#;
        assert_eq!(scan(&[responses]).1, Some(Tokens::new(3, 4, 7)));
        let embeddings = br#"{"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
        assert_eq!(scan(&[embeddings]).1, Some(Tokens::new(8, 0, 8)));
    }

    #[test]
    fn what_is_cached_or_thought_with_is_read_by_each_of_its_names() {
        let details = br#"{"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,
            "prompt_tokens_details":{"cached_tokens":5},
            "completion_tokens_details":{"reasoning_tokens":6}}}"#;
        let told = |cached, reasoning, tokens| Some(Tokens { cached, reasoning, ..tokens });
        assert_eq!(scan(&[details]).1, told(Some(5), Some(6), Tokens::new(9, 8, 17)));
        let responses = br#"{"usage":{"input_tokens":9,"output_tokens":8,"total_tokens":17,
            "input_tokens_details":{"cached_tokens":5},
            "output_tokens_details":{"reasoning_tokens":6}}}"#;
        assert_eq!(scan(&[responses]).1, told(Some(5), Some(6), Tokens::new(9, 8, 17)));
        let deepseek = br#"{"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,
            "prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":0}}"#;
        assert_eq!(scan(&[deepseek]).1, told(Some(9), None, Tokens::new(9, 8, 17)));
    }

    #[test]
    fn nonsense_does_not_spoil_the_sums() {
        let huge = br#"{"usage":{"prompt_tokens":1,"total_tokens":18446744073709551615}}"#;
        assert_eq!(scan(&[huge]).1, Some(Tokens::new(1, 0, MOST_TOKENS)));
        assert_eq!(scan(&[br#"{"usage":{"prompt_tokens":-1,"total_tokens":1e300}}"#]).1, None);
    }

    #[test]
    fn an_answer_without_usage_tells_no_tokens() {
        assert_eq!(scan(&[br#"{"model":"m","usage":null}"#]).1, None);
        assert_eq!(scan(&[br#"{"type":"usage","model":"m"}"#]).1, None);
    }
}
