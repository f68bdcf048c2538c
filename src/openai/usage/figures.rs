//! Figures of the usage objects in a response.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::value::RawValue;

use crate::store::Tokens;

/// The figures that a response has reported so far. The last report of a figure counts, but a zero does
/// not replace another number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    reasoning: Option<u64>,
    /// Anthropic's names, which count the parts of the prompt separately.
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_creation: Option<u64>,
    /// A usage object could not be read.
    is_unreadable: bool,
    is_reported: bool,
}

/// A usage object: the names of `/v1/chat/completions` and `/v1/embeddings`, those of `/v1/responses`,
/// and those of `/v1/messages`. Relays may send several, and zeros for those that they do not use.
#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<Count>,
    input_tokens: Option<Count>,
    completion_tokens: Option<Count>,
    output_tokens: Option<Count>,
    total_tokens: Option<Count>,
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
    prompt_cache_hit_tokens: Option<Count>,
    /// Kimi's.
    #[serde(default, deserialize_with = "if_readable")]
    cached_tokens: Option<Count>,
    cache_read_input_tokens: Option<Count>,
    cache_creation_input_tokens: Option<Count>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default, deserialize_with = "if_readable")]
    cached_tokens: Option<Count>,
    #[serde(default, deserialize_with = "if_readable")]
    reasoning_tokens: Option<Count>,
}

/// A number without a fraction, however it is written: `11`, `11.0`, `1.1e1`.
#[derive(Clone, Copy)]
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        // Up to `Tokens::MAX` a float is exact.
        let integral = |float: f64| {
            let is_count = (0.0..=Tokens::MAX as f64).contains(&float) && float.fract() == 0.0;
            is_count.then_some(float as u64)
        };
        let count = number.as_u64().or_else(|| number.as_f64().and_then(integral));
        count.map(Self).ok_or_else(|| D::Error::custom("not a count"))
    }
}

/// Reads a detail, which is unknown if it cannot be read, and does not make the whole unreadable.
fn if_readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    value: D,
) -> Result<Option<T>, D::Error> {
    let value = <&RawValue>::deserialize(value)?;
    Ok(serde_json::from_str(value.get()).unwrap_or_default())
}

/// Returns the first of these figures that is reported and not zero, or a zero if there is one.
fn first<const N: usize>(figures: [Option<u64>; N]) -> Option<u64> {
    let mut reported = figures.into_iter().flatten();
    let zero = figures.contains(&Some(0)).then_some(0);
    reported.find(|figure| *figure > 0).or(zero)
}

impl Figures {
    /// Adds the figures of a usage object. `null` has none.
    pub(super) fn add(&mut self, usage: &[u8]) {
        // Checking the whole is faster than checking it string by string.
        let usage = str::from_utf8(usage).ok();
        match usage.and_then(|usage| serde_json::from_str(usage).ok()) {
            Some(Some(usage)) => self.add_usage(usage),
            Some(None) => {}
            None => (self.is_unreadable, self.is_reported) = (true, true),
        }
    }

    fn add_usage(&mut self, usage: Usage) {
        let count = |count: Option<Count>| count.map(|Count(count)| count);
        let prompt_details = usage.prompt_tokens_details.or(usage.input_tokens_details);
        let completion_details = usage.completion_tokens_details.or(usage.output_tokens_details);
        let cached = prompt_details.and_then(|details| details.cached_tokens);
        let cached = cached.or(usage.prompt_cache_hit_tokens).or(usage.cached_tokens);
        let reasoning = completion_details.and_then(|details| details.reasoning_tokens);
        let completion = first([count(usage.completion_tokens), count(usage.output_tokens)]);
        for (figure, reported) in [
            (&mut self.prompt, count(usage.prompt_tokens)),
            (&mut self.input, count(usage.input_tokens)),
            (&mut self.cache_read, count(usage.cache_read_input_tokens)),
            (&mut self.cache_creation, count(usage.cache_creation_input_tokens)),
            (&mut self.completion, completion),
            (&mut self.cached, count(cached)),
            (&mut self.reasoning, count(reasoning)),
        ] {
            *figure = first([reported, *figure]);
        }
        // A total that was reported with other figures does not belong to these.
        self.total = count(usage.total_tokens);
        self.is_reported = true;
    }

    /// Returns these figures, or the others if none of these were reported.
    pub(super) fn or(self, others: Self) -> Self {
        if self.is_reported { self } else { others }
    }

    /// Returns the tokens, if the figures fit together.
    pub(super) fn tokens(self) -> Option<Tokens> {
        if self.is_unreadable {
            return None;
        }
        let prompt = first([self.prompt, self.billed_input()])?;
        // Embeddings have no completion, which their total shows.
        let completion = self.completion.or_else(|| (self.total? == prompt).then_some(0))?;
        let sum = prompt.checked_add(completion)?;
        // Some totals hold more than these two, such as reasoning that is reported nowhere else.
        let total = self.total.filter(|total| *total > 0).unwrap_or(sum);
        if total < sum || total > Tokens::MAX {
            return None;
        }
        // A part is no more than the whole.
        let part_of = |whole, part: Option<u64>| part.filter(|part| *part <= whole);
        let cached = first([self.cached, self.cache_read]);
        Some(Tokens {
            cached: part_of(prompt, cached),
            reasoning: part_of(completion, self.reasoning),
            ..Tokens::new(prompt, completion, total)
        })
    }

    /// Returns all input that is billed. An upstream that reports a total includes cached tokens in the
    /// input.
    fn billed_input(&self) -> Option<u64> {
        let input = self.input?;
        if self.total.is_some_and(|total| total > 0) {
            return Some(input);
        }
        input
            .checked_add(self.cache_read.unwrap_or(0))?
            .checked_add(self.cache_creation.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(usages: &[&str]) -> Option<Tokens> {
        let mut figures = Figures::default();
        usages.iter().for_each(|usage| figures.add(usage.as_bytes()));
        figures.tokens()
    }

    #[test]
    fn the_names_of_chats_responses_and_embeddings_are_read() {
        let chat = r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#;
        assert_eq!(tokens(&[chat]), Some(Tokens::new(3, 4, 7)));
        let responses = r#"{"input_tokens":3,"output_tokens":4,"total_tokens":7}"#;
        assert_eq!(tokens(&[responses]), Some(Tokens::new(3, 4, 7)));
        let embeddings = r#"{"prompt_tokens":8,"total_tokens":8}"#;
        assert_eq!(tokens(&[embeddings]), Some(Tokens::new(8, 0, 8)));
    }

    #[test]
    fn the_names_of_chats_win_where_both_are_reported() {
        let relay = r#"{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,
            "prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{},
            "input_tokens":0,"output_tokens":0,"input_tokens_details":null}"#;
        let expected = Tokens { cached: Some(2), ..Tokens::new(9, 12, 21) };
        assert_eq!(tokens(&[relay]), Some(expected));
    }

    #[test]
    fn cached_and_reasoning_tokens_are_read_by_each_of_their_names() {
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
            assert_eq!(tokens(&[usage]), Some(all), "{usage}");
        }
    }

    #[test]
    fn an_invalid_detail_is_unknown_by_itself() {
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
            assert_eq!(tokens(&[&usage]), Some(Tokens::new(9, 8, 17)), "{detail}");
        }
        let one = r#"{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,
            "prompt_tokens_details":{"cached_tokens":5,"reasoning_tokens":-1}}"#;
        assert_eq!(tokens(&[one]).unwrap().cached, Some(5));
    }

    #[test]
    fn an_invalid_count_makes_the_tokens_unknown() {
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
            r#"{"prompt_tokens":1e-3,"completion_tokens":1,"total_tokens":1}"#,
            r#"{"prompt_tokens":1e13,"completion_tokens":1,"total_tokens":1}"#,
            r#"{"prompt_tokens":1e400,"completion_tokens":1,"total_tokens":1}"#,
            r#"{"prompt_tokens":-1.0,"completion_tokens":1,"total_tokens":1}"#,
            r#"{"prompt_tokens":8,"total_tokens":0}"#,
            r#"{"prompt_tokens":1,"completion_tokens":1,"total_tokens":1.5}"#,
            r#"{"prompt_tokens":2,"completion_tokens":2,"total_tokens":3}"#,
            r#"{"prompt_tokens":9223372036854775808,"completion_tokens":1,"total_tokens":1}"#,
            r#"{"prompt_tokens":18446744073709551615,"completion_tokens":1}"#,
            r#"{"prompt_tokens":18446744073709551616,"completion_tokens":1,"total_tokens":1}"#,
            r#"{"prompt_tokens":1,"completion_tokens":1,"total_tokens":1000000000001}"#,
            r#"{"prompt_tokens":1,"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}"#,
        ] {
            assert_eq!(tokens(&[usage]), None, "{usage}");
        }
    }

    #[test]
    fn the_total_is_as_reported_or_the_sum_of_its_parts() {
        let reported_total = r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":9}"#;
        assert_eq!(tokens(&[reported_total]), Some(Tokens::new(3, 4, 9)));
        for usage in [
            r#"{"prompt_tokens":3,"completion_tokens":4}"#,
            r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":null}"#,
        ] {
            assert_eq!(tokens(&[usage]), Some(Tokens::new(3, 4, 7)));
        }
        let null = r#"{"prompt_tokens":3,"completion_tokens":null,"total_tokens":3}"#;
        assert_eq!(tokens(&[null]), Some(Tokens::new(3, 0, 3)));
    }

    #[test]
    fn later_counts_replace_earlier_ones() {
        let start = r#"{"input_tokens":25,"output_tokens":1}"#;
        let delta = r#"{"output_tokens":150}"#;
        assert_eq!(tokens(&[start, "null", delta]), Some(Tokens::new(25, 150, 175)));
        assert_eq!(tokens(&[delta]), None);
        let sum = r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#;
        assert_eq!(tokens(&[sum, r#"{"completion_tokens":9}"#]), Some(Tokens::new(3, 9, 12)));
        assert_eq!(tokens(&[sum, "null"]), Some(Tokens::new(3, 4, 7)));
        assert_eq!(tokens(&[sum, "true"]), None);
    }

    #[test]
    fn all_input_that_anthropic_bills_is_the_prompt() {
        let cached = |cached, prompt, completion| {
            let all = Tokens::new(prompt, completion, prompt + completion);
            Some(Tokens { cached: Some(cached), ..all })
        };
        let start = r#"{"input_tokens":25,"cache_creation_input_tokens":50,
            "cache_read_input_tokens":1000,"output_tokens":1,
            "cache_creation":{"ephemeral_5m_input_tokens":50}}"#;
        assert_eq!(tokens(&[start]), cached(1000, 1075, 1));
        for delta in [
            r#"{"output_tokens":150}"#,
            r#"{"input_tokens":0,"output_tokens":150,"cache_read_input_tokens":0,
                "cache_creation_input_tokens":0}"#,
            r#"{"input_tokens":25,"output_tokens":150,"cache_read_input_tokens":1000,
                "cache_creation_input_tokens":50}"#,
            r#"{"input_tokens":25,"output_tokens":150,"cache_read_input_tokens":null}"#,
        ] {
            assert_eq!(tokens(&[start, delta]), cached(1000, 1075, 150), "{delta}");
            assert_eq!(tokens(&[start, delta, r#"{"output_tokens":0}"#]), cached(1000, 1075, 150));
        }
        let late = r#"{"input_tokens":9,"output_tokens":2,"cache_read_input_tokens":4}"#;
        assert_eq!(tokens(&[r#"{"input_tokens":0,"output_tokens":0}"#, late]), cached(4, 13, 2));
        let all_cached = r#"{"input_tokens":0,"output_tokens":2,"cache_read_input_tokens":4}"#;
        assert_eq!(tokens(&[all_cached]), cached(4, 4, 2));
        let with_total = r#"{"input_tokens":9,"output_tokens":2,"total_tokens":11,
            "cache_read_input_tokens":4}"#;
        assert_eq!(tokens(&[with_total]), cached(4, 9, 2), "the total says what is in the input");
        let relay = r#"{"prompt_tokens":13,"completion_tokens":2,"total_tokens":15,
            "input_tokens":9,"cache_read_input_tokens":4}"#;
        assert_eq!(tokens(&[relay]), cached(4, 13, 2));
        let huge = r#"{"input_tokens":9,"output_tokens":2,
            "cache_read_input_tokens":18446744073709551615}"#;
        assert_eq!(tokens(&[huge]), None);
    }

    #[test]
    fn a_number_without_fraction_is_a_count_however_it_is_written() {
        for usage in [
            r#"{"prompt_tokens":11.0,"completion_tokens":7.0,"total_tokens":18.0}"#,
            r#"{"prompt_tokens":1.1e1,"completion_tokens":70E-1,"total_tokens":18}"#,
        ] {
            assert_eq!(tokens(&[usage]), Some(Tokens::new(11, 7, 18)), "{usage}");
        }
    }

    #[test]
    fn a_zero_counts_only_if_nothing_else_is_reported() {
        let total = r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":0}"#;
        assert_eq!(tokens(&[total]), Some(Tokens::new(3, 4, 7)));
        let other_names = r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,
            "input_tokens":3,"output_tokens":4}"#;
        assert_eq!(tokens(&[other_names]), Some(Tokens::new(3, 4, 7)));
        let zeros = r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#;
        assert_eq!(tokens(&[zeros]), Some(Tokens::new(0, 0, 0)));
        assert_eq!(tokens(&[total, zeros]), Some(Tokens::new(3, 4, 7)));
        assert_eq!(
            tokens(&[r#"{"prompt_tokens":0,"total_tokens":0}"#]),
            Some(Tokens::new(0, 0, 0))
        );
    }

    #[test]
    fn cached_tokens_of_kimi_are_read() {
        let usage =
            r#"{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"cached_tokens":4}"#;
        let cached = Some(Tokens { cached: Some(4), ..Tokens::new(9, 2, 11) });
        assert_eq!(tokens(&[usage]), cached);
    }
}
