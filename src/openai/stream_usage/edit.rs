use std::{fmt, ops::Range};

use memchr::memmem;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A change of a request that makes it request usage: a text, and the bytes that it replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) at: Range<usize>,
    pub(super) text: &'static str,
}

impl Edit {
    /// Returns the change of this request; `None` if it is not streamed, requests usage already, or is
    /// ambiguous.
    pub(super) fn of(request: &[u8]) -> Option<Self> {
        // The value is never written in another way, and most requests that are not streamed do not have it.
        memmem::find(request, b"true")?;
        let [stream, options] = members(request, ["stream", "stream_options"])?;
        let Member::Once(stream) = stream else { return None };
        if stream != "true" {
            return None;
        }
        let span = |value: &str| {
            let begin = value.as_ptr().addr() - request.as_ptr().addr();
            begin..begin + value.len()
        };
        match options {
            Member::Missing => {
                let end = span(stream).end;
                Some(Self { at: end..end, text: r#","stream_options":{"include_usage":true}"# })
            }
            Member::Once(options @ "null") => {
                Some(Self { at: span(options), text: r#"{"include_usage":true}"# })
            }
            Member::Once(options) => of_options(options, span(options).start),
            Member::Repeated => None,
        }
    }
}

/// Returns the change of these options, which begin at this byte of the request.
fn of_options(options: &str, begin: usize) -> Option<Edit> {
    // vLLM's `continuous_usage_stats` has no effect unless usage is requested.
    let names = ["include_usage", "continuous_usage_stats"];
    let [include, Member::Missing] = members(options.as_bytes(), names)? else { return None };
    match include {
        Member::Missing => {
            let is_empty = options[1..].trim_ascii_start() == "}";
            let text =
                if is_empty { r#""include_usage":true"# } else { r#""include_usage":true,"# };
            Some(Edit { at: begin + 1..begin + 1, text })
        }
        Member::Once(value @ ("null" | "false")) => {
            let begin = begin + (value.as_ptr().addr() - options.as_ptr().addr());
            Some(Edit { at: begin..begin + value.len(), text: "true" })
        }
        _ => None,
    }
}

/// The value of a member, as it is written.
#[derive(Clone, Copy, Debug)]
enum Member<'a> {
    Missing,
    Once(&'a str),
    Repeated,
}

/// Returns the members with these names of the object that `json` is; `None` if it is not an object.
fn members<'a, const N: usize>(json: &'a [u8], names: [&str; N]) -> Option<[Member<'a>; N]> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let members = json.deserialize_map(Members(names)).ok()?;
    json.end().ok()?;
    Some(members)
}

struct Members<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Member<'de>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = [Member::Missing; N];
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value::<&RawValue>()?.get();
            if let Some(at) = self.0.iter().position(|other| *other == name) {
                members[at] = match members[at] {
                    Member::Missing => Member::Once(value),
                    _ => Member::Repeated,
                };
            }
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(request: &str) -> String {
        let mut edited = request.to_owned();
        if let Some(Edit { at, text }) = Edit::of(request.as_bytes()) {
            edited.replace_range(at, text);
        }
        edited
    }

    #[test]
    fn only_the_option_is_inserted() {
        for (request, expected) in [
            (r#"{"stream":true}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
            (
                " { \"n\" : 12345678901234567890,\"stream\"\t:\r\n true , \"a\":1e400,\"a\":\"\\u4f60好\" }\n",
                " { \"n\" : 12345678901234567890,\"stream\"\t:\r\n true,\"stream_options\":{\"include_usage\":true} , \"a\":1e400,\"a\":\"\\u4f60好\" }\n",
            ),
            (
                r#"{"stream_options":null,"stream":true}"#,
                r#"{"stream_options":{"include_usage":true},"stream":true}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{ }}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true }}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{ "include_obfuscation":false}}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true, "include_obfuscation":false}}"#,
            ),
            (
                r#"{"stream":true,"stream_options": {"x":{}, "include_usage" : false}}"#,
                r#"{"stream":true,"stream_options": {"x":{}, "include_usage" : true}}"#,
            ),
            (
                r#"{"stream_options":{"include_usage":null},"stream":true}"#,
                r#"{"stream_options":{"include_usage":true},"stream":true}"#,
            ),
            (
                r#"{"\u0073tream":true,"messages":[{"stream":false,"content":"\"stream\":false}"}]}"#,
                r#"{"\u0073tream":true,"stream_options":{"include_usage":true},"messages":[{"stream":false,"content":"\"stream\":false}"}]}"#,
            ),
        ] {
            assert_eq!(edited(request), expected);
            assert_eq!(edited(expected), expected, "requests usage already");
        }
    }

    #[test]
    fn unstreamed_and_ambiguous_requests_are_unchanged() {
        for request in [
            "",
            "{}",
            "true",
            r#"[{"stream":true}]"#,
            r#"{"stream":false}"#,
            r#"{"stream":"true"}"#,
            r#"{"stream":1}"#,
            r#"{"options":{"stream":true}}"#,
            r#"{"text":"\"stream\":true"}"#,
            r#"{"stream":true"#,
            r#"{"stream":true}}"#,
            r#"{"stream":true,}"#,
            r#"{"stream":true} x"#,
            r#"{"stream":true,"a":[1,2}"#,
            "{\"stream\":true,\"a\":\"\n\"}",
            "\u{feff}{\"stream\":true}",
            r#"{"stream":true,"stream":true}"#,
            r#"{"stream":true,"\u0073tream":false}"#,
            r#"{"stream":true,"stream_options":null,"stream_options":{}}"#,
            r#"{"stream":true,"stream_options":{},"stream\u005foptions":{}}"#,
            r#"{"stream":true,"stream_options":[]}"#,
            r#"{"stream":true,"stream_options":"null"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":1}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":false,"include_usage":true}}"#,
            r#"{"stream":true,"stream_options":{"continuous_usage_stats":true}}"#,
        ] {
            assert_eq!(Edit::of(request.as_bytes()), None, "{request}");
        }
        assert_eq!(Edit::of(b"{\"stream\":true,\"a\":\"\xff\"}"), None);
        assert_eq!(Edit::of(b"{\"stream\":true,\"a\":{\"\xc3\":1}}"), None);
    }

    #[test]
    fn random_requests_differ_only_in_requesting_usage() {
        const MEMBERS: [&str; 10] = [
            r#""stream" : true"#,
            r#""stream":false"#,
            r#""\u0073tream":true"#,
            r#""stream_options":null"#,
            "\"stream_options\":{\r\n}",
            r#""stream_options":{ "x" :[{"include_usage":true}], "include_usage" :false}"#,
            r#""stream_options":{"include_usage":true}"#,
            r#""n":123456789012345678901234567890"#,
            r#""messages":[{"role":"user","content":"}\\\",\"stream\":true 你"}]"#,
            "\t\"f\" :\n-0.0e-7 ",
        ];
        let mut changed = 0;
        for seed in 0..4000_u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut below = |end: usize| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (random >> 33) as usize % end
            };
            let members: Vec<&str> = (0..below(6)).map(|_| MEMBERS[below(MEMBERS.len())]).collect();
            let request = format!(" {{{}}}\n", members.join(","));
            for end in 0..request.trim_end().len() {
                assert_eq!(Edit::of(&request.as_bytes()[..end]), None, "cut off: {request}");
            }
            let Some(Edit { at, text }) = Edit::of(request.as_bytes()) else { continue };
            changed += 1;
            let edited = edited(&request);
            assert_eq!(edited[..at.start], request[..at.start]);
            assert_eq!(edited[at.start + text.len()..], request[at.end..]);
            let mut expected: serde_json::Value = serde_json::from_str(&request).unwrap();
            expected["stream_options"]["include_usage"] = true.into();
            let seen: serde_json::Value = serde_json::from_str(&edited).unwrap();
            assert_eq!(seen, expected, "{request}");
            assert_eq!(Edit::of(edited.as_bytes()), None, "requests usage already: {edited}");
        }
        assert!(changed > 400, "{changed}");
    }

    #[test]
    fn nesting_depth_uses_no_stack() {
        let deep = |depth| ["[".repeat(depth), "]".repeat(depth)].concat();
        let request = format!(r#"{{"stream":true,"messages":{}}}"#, deep(100_000));
        assert!(Edit::of(request.as_bytes()).is_some());
        assert_eq!(Edit::of(&request.as_bytes()[..100_000]), None);
    }
}
