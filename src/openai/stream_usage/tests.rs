//! The filter against a simple one that has the whole stream, at every split.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::Value;

use super::filter::EventFilter;

const OPENAI: &str = r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","service_tier":"default","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"a9"}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"{\"choices\":[],\"usage\":{}}"},"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","service_tier":"default","choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},"obfuscation":""}

data: [DONE]

"#;

/// The usage is in the last chunk with content, after comments that keep the connection alive.
const DEEPSEEK: &str = r#": keep-alive

: keep-alive

data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"deepseek-chat","system_fingerprint":"fp","choices":[{"index":0,"delta":{"role":"assistant","content":"你好"},"logprobs":null,"finish_reason":null}]}

data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"deepseek-chat","system_fingerprint":"fp","choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6,"prompt_cache_hit_tokens":0}}

data: [DONE]

"#;

const VLLM: &str = r#"data: {"id":"chatcmpl-2","object":"chat.completion.chunk","created":2,"model":"qwen","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}

data: {"id":"chatcmpl-2","object":"chat.completion.chunk","created":2,"model":"qwen","choices":[{"index":0,"delta":{"content":"]}"},"logprobs":null,"finish_reason":"stop","stop_reason":null}]}

data: {"id":"chatcmpl-2","object":"chat.completion.chunk","created":2,"model":"qwen","choices":[],"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3}}

data: [DONE]

"#;

const OLLAMA: &str = r#"data: {"id":"chatcmpl-3","object":"chat.completion.chunk","created":3,"model":"llama3.2","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}

data: {"id":"chatcmpl-3","object":"chat.completion.chunk","created":3,"model":"llama3.2","system_fingerprint":"fp_ollama","choices":[],"usage":{"prompt_tokens":26,"completion_tokens":2,"total_tokens":28}}

data: [DONE]

"#;

/// What the specifications of SSE and JSON allow and nobody sends.
const ODD: &str = "\n\nevent: chunk\nid: 1\ndata:{ \"usage\" : {} ,\n: comment\ndata: \"choices\" : [ ]\ndata\n\
    data:}\n\ndata: {\"choices\":[],\"usage\":null}\n\ndata: {\"choices\":[]}\n\ndata\n\nda\n\n: x\n\
    data: {\"a\":{\"choices\":[1]},\"\\\"\":\"\\\"\",\"choices\":[],\"usage\":{\"t\":\"\\\\\"}}\n\n\
    data: {\"x\\\"choices\":[1],\"choices\":[],\"usage\":{}}\n\n\
    data: {\"choices\":[],\"usage\":{}} x\n\ndatas: {\"choices\":[],\"usage\":{}}\n\n\
    data: {\"\\u0063hoices\":[],\"usage\":{}}\n\ndata: {\"choices\":[],\"usage\":{\"a\n\
    data: b\":1}}\n\ndata: {\"choices\":{},\"usage\":{}}\n\ndata: {}\n\ndata: [DONE]\n\n\
    data: {\"choices\":[],\"usage\":{}}\n";

/// A byte order mark.
const MARK: &str = "\u{feff}";

/// Lines with their ends.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['\n', '\r']).map_or(rest.len(), |end| end + 1);
        let end = end + usize::from(rest[..end].ends_with('\r') && rest[end..].starts_with('\n'));
        lines.push(&rest[..end]);
        rest = &rest[end..];
    }
    lines
}

fn is_usage(event: &[&str]) -> bool {
    let data =
        event.iter().filter_map(|line| line.trim_end_matches(['\n', '\r']).strip_prefix("data:"));
    let data: Vec<&str> = data.collect();
    let Ok(data) = serde_json::from_str::<Value>(&data.join("\n")) else { return false };
    data["choices"].as_array().is_some_and(Vec::is_empty) && data["usage"].is_object()
}

/// What is expected to be left of a stream.
fn expected(stream: &str) -> String {
    let mut expected = String::new();
    let stream = stream.strip_prefix(MARK).map_or(stream, |rest| {
        expected.push_str(MARK);
        rest
    });
    let mut event = Vec::new();
    for line in lines(stream) {
        event.push(line);
        if line.trim_end_matches(['\n', '\r']).is_empty() {
            let is_usage = is_usage(&event);
            event
                .drain(..)
                .filter(|line| !is_usage || line.starts_with(':'))
                .for_each(|line| expected.push_str(line));
        }
    }
    event.into_iter().for_each(|line| expected.push_str(line));
    expected
}

fn filtered<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut filter, mut out) = (EventFilter::default(), VecDeque::new());
    for chunk in chunks {
        filter.push(Bytes::copy_from_slice(chunk), &mut out);
    }
    filter.finish(&mut out);
    out.into_iter().flatten().collect()
}

fn check<'a>(stream: &str, chunks: impl IntoIterator<Item = &'a [u8]>) {
    let seen = String::from_utf8(filtered(chunks)).unwrap();
    assert_eq!(seen, expected(stream));
}

/// The streams with each kind of line end.
fn streams() -> Vec<String> {
    let streams = [OPENAI, DEEPSEEK, VLLM, OLLAMA, ODD];
    let ends = ["\n", "\r\n", "\r"];
    let with_end = |end: &&str| streams.map(|stream| stream.replace('\n', end));
    let plain: Vec<String> = ends.iter().flat_map(with_end).collect();
    let marked: Vec<String> = plain.iter().map(|stream| [MARK, stream].concat()).collect();
    [plain, marked].concat()
}

#[test]
fn only_the_usage_event_is_removed() {
    for (stream, events) in [(OPENAI, 1), (DEEPSEEK, 0), (VLLM, 1), (OLLAMA, 1), (ODD, 4)] {
        let seen = String::from_utf8(filtered([stream.as_bytes()])).unwrap();
        assert_eq!(seen, expected(stream));
        let count = |stream: &str| stream.matches("\n\n").count();
        assert_eq!(count(stream) - count(&seen), events, "{seen}");
    }
    assert_eq!(filtered([DEEPSEEK.as_bytes()]), DEEPSEEK.as_bytes());
}

#[test]
fn a_usage_event_after_a_byte_order_mark_is_removed() {
    let usage = "data: {\"choices\":[],\"usage\":{}}\n\n";
    let stream = [MARK, usage, MARK, usage].concat();
    let left = [MARK, MARK, usage].concat();
    for size in 1..=stream.len() {
        assert_eq!(filtered(stream.as_bytes().chunks(size)), left.as_bytes(), "by {size}");
    }
}

#[test]
fn the_result_is_the_same_at_every_split() {
    for stream in streams() {
        let bytes = stream.as_bytes();
        check(&stream, bytes.chunks(1));
        for first in 0..=bytes.len() {
            check(&stream, [&bytes[..first], &bytes[first..]]);
            let second = (first + 1 + first % 97).min(bytes.len());
            check(&stream, [&bytes[..first], &bytes[first..second], &bytes[second..]]);
        }
    }
}

#[test]
fn the_result_is_the_same_for_random_streams_in_random_chunks() {
    const PARTS: [&str; 16] = [
        "data: {\"choices\":[],\"usage\":{\"total_tokens\":1}}",
        "data: {\"choices\":[{}],\"usage\":{}}",
        "data:{\"choices\":",
        "data: [],\"usage\":",
        "data:{}}",
        "data: {\"usage\":{},",
        "data: \"choices\":[]}",
        "data",
        ": c",
        "id: 1",
        "\n",
        "\n\n",
        "\r\n",
        "\r\n\r\n",
        "\r",
        "data: [DONE]\n\n",
    ];
    for seed in 0..3000 {
        let mut random = seed;
        let mut below = |end: usize| {
            random = splitmix(random);
            (random % end as u64) as usize
        };
        let stream: String = (0..1 + below(24)).map(|_| PARTS[below(PARTS.len())]).collect();
        let mut chunks = Vec::new();
        let mut rest = stream.as_bytes();
        while !rest.is_empty() {
            let (chunk, more) = rest.split_at(1 + below(rest.len().min(30)));
            chunks.push(chunk);
            rest = more;
        }
        let seen = String::from_utf8(filtered(chunks.iter().copied())).unwrap();
        assert_eq!(seen, expected(&stream), "seed {seed}: {stream:?} in {chunks:?}");
    }
}

fn splitmix(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn other_events_are_forwarded_at_once() {
    for (chunk, passes_at_once) in [
        (": keep", true),
        ("\n", true),
        ("\r", true),
        ("data: [", true),
        ("data: x", true),
        ("data: {\"choices\":[{", true),
        ("data: {\"choices\": n", true),
        ("data: {\"a\":{\"choices\":[1]},\"b\":\"\\\"\",\"choices\" : [1", true),
        ("data: {} ", true),
        ("data: {\"choices\":[{}]}\n", true),
        ("d", false),
        ("data: {\"id\":\"", false),
        ("data: {\"a\":{\"choices\":[1", false),
        ("data: {\"choices\":[", false),
        ("data: {\"choices\":[],\"usage\":{}}\n", false),
        ("event: x\n", false),
    ] {
        for before in
            ["", "data: [DONE]\n\n", ": c\r\n", "data: {\"choices\":[],\"usage\":{}}\r\n\r"]
        {
            for chunks in
                [vec![before.as_bytes(), chunk.as_bytes()], chunk.as_bytes().chunks(1).collect()]
            {
                let (mut filter, mut out) = (EventFilter::default(), VecDeque::new());
                chunks
                    .into_iter()
                    .for_each(|chunk| filter.push(Bytes::copy_from_slice(chunk), &mut out));
                assert_eq!(filter.held() == 0, passes_at_once, "{chunk}");
            }
        }
    }
}

#[test]
fn a_chunk_without_a_usage_event_is_not_copied() {
    let (mut filter, mut out) = (EventFilter::default(), VecDeque::new());
    for chunk in DEEPSEEK.split_inclusive("\n\n") {
        let chunk = Bytes::copy_from_slice(chunk.as_bytes());
        filter.push(chunk.clone(), &mut out);
        let sent = out.pop_front().unwrap();
        assert_eq!((sent.as_ptr(), sent.len()), (chunk.as_ptr(), chunk.len()));
    }
}

#[test]
fn a_long_event_is_held_up_to_a_maximum() {
    const MAX: usize = 16 * 1024;
    let of_length = |length: usize| {
        let event =
            |id: &str| format!("data: {{\"id\":\"{id}\",\"choices\":[],\"usage\":{{}}}}\n\n");
        event(&"x".repeat(length - event("").len()))
    };
    for (length, passes) in [(MAX, false), (MAX + 1, true), (5 * MAX, true)] {
        let event = of_length(length);
        for size in [1, 1000, MAX - 1, MAX, MAX + 1, length] {
            let (mut filter, mut out) = (EventFilter::default(), VecDeque::new());
            for chunk in event.as_bytes().chunks(size) {
                filter.push(Bytes::copy_from_slice(chunk), &mut out);
                assert!(filter.held() <= MAX);
            }
            let seen: Vec<u8> = out.into_iter().flatten().collect();
            assert!(seen == if passes { event.as_bytes() } else { b"" }, "{length} in {size}");
        }
    }
}
