//! What the usage objects of an answer stand for.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::Tokens;

/// More than this in one answer is no figure that anybody has billed.
const MOST_TOKENS: u64 = 1_000_000_000_000;

/// The figures of an answer, so far. A figure that is told again counts as told last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    reasoning: Option<u64>,
}

/// A usage object: the names of `/v1/chat/completions` and `/v1/embeddings`, and those of
/// `/v1/responses`. Relays may tell both, and of the second zeros.
#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    input_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    output_tokens: Option<u64>,
    total_tokens: Option<u64>,
    #[serde(default, deserialize_with = "if_readable")]
    prompt_tokens_details: Option<Details>,
    #[serde(default, deserialize_with = "if_readable")]
    input_tokens_details: Option<Details>,
    #[serde(default, deserialize_with = "if_readable")]
    completion_tokens_details: Option<Details>,
    #[serde(default, deserialize_with = "if_readable")]
    output_tokens_details: Option<Details>,
    /// DeepSeek's name for cached tokens.
    #[serde(default, deserialize_with = "if_readable")]
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default, deserialize_with = "if_readable")]
    cached_tokens: Option<u64>,
    #[serde(default, deserialize_with = "if_readable")]
    reasoning_tokens: Option<u64>,
}

/// A detail that cannot be read is unknown, and spoils nothing else.
fn if_readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    value: D,
) -> Result<Option<T>, D::Error> {
    let value = <&RawValue>::deserialize(value)?;
    Ok(serde_json::from_str(value.get()).unwrap_or_default())
}

impl Figures {
    /// These figures and, over them, those of a usage object. `None` if it cannot be read; `null` tells
    /// nothing.
    pub(super) fn and(self, usage: &[u8]) -> Option<Self> {
        // Checked as a whole, not string by string.
        let usage = str::from_utf8(usage).ok()?;
        let Some(usage) = serde_json::from_str::<Option<Usage>>(usage).ok()? else {
            return Some(self);
        };
        let prompt_details = usage.prompt_tokens_details.or(usage.input_tokens_details);
        let completion_details = usage.completion_tokens_details.or(usage.output_tokens_details);
        let cached = prompt_details.and_then(|details| details.cached_tokens);
        let reasoning = completion_details.and_then(|details| details.reasoning_tokens);
        Some(Self {
            prompt: usage.prompt_tokens.or(usage.input_tokens).or(self.prompt),
            completion: usage.completion_tokens.or(usage.output_tokens).or(self.completion),
            // A total of other figures is none of these.
            total: usage.total_tokens,
            cached: cached.or(usage.prompt_cache_hit_tokens).or(self.cached),
            reasoning: reasoning.or(self.reasoning),
        })
    }

    /// The tokens, if the figures fit together.
    pub(super) fn tokens(self) -> Option<Tokens> {
        let prompt = self.prompt?;
        // Embeddings have no completion, and their total says so.
        let completion = self.completion.or_else(|| (self.total? == prompt).then_some(0))?;
        let sum = prompt.checked_add(completion)?;
        // Some totals hold more than these two, such as thoughts that are told of nowhere else.
        let total = self.total.unwrap_or(sum);
        if total < sum || total > MOST_TOKENS {
            return None;
        }
        // A part is no more than the whole.
        let part_of = |whole, part: Option<u64>| part.filter(|part| *part <= whole);
        Some(Tokens {
            cached: part_of(prompt, self.cached),
            reasoning: part_of(completion, self.reasoning),
            ..Tokens::new(prompt, completion, total)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(usages: &[&str]) -> Option<Tokens> {
        let figures = usages
            .iter()
            .try_fold(Figures::default(), |figures, usage| figures.and(usage.as_bytes()));
        figures?.tokens()
    }

    #[test]
    fn the_names_of_chats_responses_and_embeddings_are_read() {
        let chat = r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#;
        assert_eq!(told(&[chat]), Some(Tokens::new(3, 4, 7)));
        let responses = r#"{"input_tokens":3,"output_tokens":4,"total_tokens":7}"#;
        assert_eq!(told(&[responses]), Some(Tokens::new(3, 4, 7)));
        let embeddings = r#"{"prompt_tokens":8,"total_tokens":8}"#;
        assert_eq!(told(&[embeddings]), Some(Tokens::new(8, 0, 8)));
    }

    #[test]
    fn the_names_of_chats_win_where_both_are_told() {
        let relay = r#"{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,
            "prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{},
            "input_tokens":0,"output_tokens":0,"input_tokens_details":null}"#;
        let tokens = Tokens { cached: Some(2), ..Tokens::new(9, 12, 21) };
        assert_eq!(told(&[relay]), Some(tokens));
    }

    #[test]
    fn what_is_cached_or_thought_with_is_read_by_each_of_its_names() {
        let all = Tokens { cached: Some(5), reasoning: Some(6), ..Tokens::new(9, 8, 17) };
        for usage in [
            r#"{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,
            "prompt_tokens_details":{"cached_tokens":5},
            "completion_tokens_details":{"reasoning_tokens":6}}"#,
            r#"{"input_tokens":9,"output_tokens":8,"total_tokens":17,
            "input_tokens_details":{"cached_tokens":5},
            "output_tokens_details":{"reasoning_tokens":6}}"#,
            r#"{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,
            "prompt_cache_hit_tokens":5,"prompt_cache_miss_tokens":4,
            "completion_tokens_details":{"reasoning_tokens":6}}"#,
        ] {
            assert_eq!(told(&[usage]), Some(all), "{usage}");
        }
    }

    #[test]
    fn a_detail_that_cannot_be_is_unknown_by_itself() {
        for detail in [
            r#""prompt_tokens_details":{"cached_tokens":-1}"#,
            r#""prompt_tokens_details":{"cached_tokens":10}"#,
            r#""prompt_tokens_details":[]"#,
            r#""completion_tokens_details":{"reasoning_tokens":"6"}"#,
            r#""completion_tokens_details":{"reasoning_tokens":9}"#,
            r#""prompt_cache_hit_tokens":64"#,
            r#""x":[[[[{}]]]]"#,
        ] {
            let usage = format!(
                r#"{{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,{detail}}}"#
            );
            assert_eq!(told(&[&usage]), Some(Tokens::new(9, 8, 17)), "{detail}");
        }
        let one = r#"{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,
            "prompt_tokens_details":{"cached_tokens":5,"reasoning_tokens":-1}}"#;
        assert_eq!(told(&[one]).unwrap().cached, Some(5));
    }

    #[test]
    fn a_figure_that_cannot_be_makes_the_tokens_unknown() {
        for usage in [
            "{}",
            "[]",
            "7",
            r#"{"total_tokens":5}"#,
            r#"{"completion_tokens":5,"total_tokens":5}"#,
            r#"{"prompt_tokens":5}"#,
            r#"{"prompt_tokens":5,"completion_tokens":null,"total_tokens":7}"#,
            r#"{"prompt_tokens":-1,"completion_tokens":1,"total_tokens":1}"#,
            r#"{"prompt_tokens":1,"completion_tokens":"1","total_tokens":2}"#,
            r#"{"prompt_tokens":1e3,"completion_tokens":1,"total_tokens":1001}"#,
            r#"{"prompt_tokens":1,"completion_tokens":1,"total_tokens":1.5}"#,
            r#"{"prompt_tokens":2,"completion_tokens":2,"total_tokens":3}"#,
            r#"{"prompt_tokens":9223372036854775808,"completion_tokens":1,"total_tokens":1}"#,
            r#"{"prompt_tokens":18446744073709551615,"completion_tokens":1}"#,
            r#"{"prompt_tokens":18446744073709551616,"completion_tokens":1,"total_tokens":1}"#,
            r#"{"prompt_tokens":1,"completion_tokens":1,"total_tokens":1000000000001}"#,
            r#"{"prompt_tokens":1,"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}"#,
        ] {
            assert_eq!(told(&[usage]), None, "{usage}");
        }
    }

    #[test]
    fn the_total_is_as_told_if_it_holds_the_parts_and_their_sum_if_it_is_not_told() {
        let told_total = r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":9}"#;
        assert_eq!(told(&[told_total]), Some(Tokens::new(3, 4, 9)));
        for usage in [
            r#"{"prompt_tokens":3,"completion_tokens":4}"#,
            r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":null}"#,
        ] {
            assert_eq!(told(&[usage]), Some(Tokens::new(3, 4, 7)));
        }
        let null = r#"{"prompt_tokens":3,"completion_tokens":null,"total_tokens":3}"#;
        assert_eq!(told(&[null]), Some(Tokens::new(3, 0, 3)));
    }

    #[test]
    fn figures_told_later_count_and_those_told_only_before_stay() {
        let start = r#"{"input_tokens":25,"output_tokens":1}"#;
        let delta = r#"{"output_tokens":150}"#;
        assert_eq!(told(&[start, "null", delta]), Some(Tokens::new(25, 150, 175)));
        assert_eq!(told(&[delta]), None);
        let sum = r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#;
        assert_eq!(told(&[sum, r#"{"completion_tokens":9}"#]), Some(Tokens::new(3, 9, 12)));
        assert_eq!(told(&[sum, "null"]), Some(Tokens::new(3, 4, 7)));
        assert_eq!(told(&[sum, "true"]), None);
    }
}
