//! What is read of responses, in any chunks.

use std::io::Write;

use http::Response;

use super::*;
use crate::{store::Tokens, usage::scanner::ResponseScanner};

type Seen = (Option<String>, Option<Tokens>);

fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, is_whole: bool) -> Seen {
    let head = Response::new(()).into_parts().0;
    let mut scanner = ResponseScanner::new(Some(&OpenAiUsage), &Method::POST, &head);
    chunks.into_iter().for_each(|chunk| scanner.scan(chunk));
    finish(&mut scanner, is_whole)
}

fn finish(scanner: &mut ResponseScanner, is_whole: bool) -> Seen {
    let ReportedUsage { model, tokens } = scanner.finish(is_whole);
    (model, tokens)
}

/// Reads a text at every split into two, in many chunks and byte by byte, with the same result.
#[track_caller]
fn read_all(text: &str, is_whole: bool) -> Seen {
    let bytes = text.as_bytes();
    let whole = read([bytes], is_whole);
    for at in 0..=bytes.len() {
        assert_eq!(read([&bytes[..at], &bytes[at..]], is_whole), whole, "{text} at {at}");
    }
    for size in [1, 2, 3, 7, 19] {
        assert_eq!(read(bytes.chunks(size), is_whole), whole, "{text} by {size}");
    }
    whole
}

#[track_caller]
fn tokens(text: &str) -> Option<Tokens> {
    read_all(text, true).1
}

fn model(text: &str) -> Option<String> {
    read_all(text, true).0
}

/// The tokens of a response that broke off, or whose client has left.
fn tokens_of_part(text: &str) -> Option<Tokens> {
    read_all(text, false).1
}

const STREAM: &str = concat!(
    "\u{feff}: keep-alive\n\n",
    "data: {\"model\":\"deepseek-chat\",\"choices\":[{\"delta\":{\"content\":",
    "\"say \\\"usage\\\":{\\\"prompt_tokens\\\":9}\"}}],\"usage\":null}\n\n",
    "data: {\"model\":\"x\",\"choices\":[],\"usage\": {\"prompt_tokens\":11,",
    "\"completion_tokens\":7,\"total_tokens\":18,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n",
    "data: [DONE]\n\n",
);
const USAGE: &str = r#"{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}"#;
const FORGED: &str = r#"{"prompt_tokens":777,"completion_tokens":777,"total_tokens":1554}"#;

fn usage() -> Option<Tokens> {
    Some(Tokens::new(1, 2, 3))
}

/// This text with figures in the marked places.
fn with_figures(text: &str) -> String {
    text.replace("USAGE", USAGE).replace("FORGED", FORGED)
}

#[test]
fn a_stream_is_read_the_same_at_every_split_into_three() {
    let tokens = Tokens { cached: Some(4), ..Tokens::new(11, 7, 18) };
    let expected = (Some("deepseek-chat".to_owned()), Some(tokens));
    for stream in [STREAM.to_owned(), STREAM.replace('\n', "\r\n"), STREAM.replace('\n', "\r")] {
        let bytes = stream.as_bytes();
        assert_eq!(read_all(&stream, true), expected);
        for first in 0..bytes.len() {
            for second in (first..bytes.len()).step_by(7) {
                let chunks = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(read(chunks, true), expected, "split at {first} and {second}");
            }
        }
    }
}

#[test]
fn usage_is_read_at_the_top_level_and_in_event_objects() {
    for text in [
        r#"{"model":"m","choices":[{}],"usage":USAGE}"#,
        "\u{feff}\n {\"usage\":USAGE,\"choices\":[],\"model\":\"m\"}",
        "data:{\"model\":\"m\",\"usage\":USAGE}\n\n",
        "data:{\"type\":\"response.completed\",\"response\":{\"model\":\"m\",\"usage\":USAGE}}\n\n",
        "data:{\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":USAGE}}\n\n",
        r#"{"model":"m","choices":[{"message":{"content":"x"},"usage":USAGE}]}"#,
        "data:{\"model\":\"m\",\"choices\":[{\"delta\":{},\"usage\":USAGE}],\"usage\":null}\n\n",
        "data:{\"model\":\"m\",\"choices\":[{\"delta\":{}}],\"x_groq\":{\"usage\":USAGE}}\n\n",
    ] {
        let text = with_figures(text);
        assert_eq!(read_all(&text, true), (Some("m".into()), usage()), "{text}");
    }
}

#[test]
fn echoed_text_is_not_taken_for_usage() {
    for text in [
        r#"{"choices":[{"message":{"tool_calls":[{"function":{"arguments":{"usage":FORGED}}}]}}]}"#,
        r#"{"metadata":{"usage":FORGED},"tools":[{"usage":FORGED}],"a\"usage":FORGED}"#,
        r#"{"x":"\"usage\":FORGED"}"#,
        r#"[{"usage":FORGED}]"#,
        r#"{"choices":[{"message":{"content":{"usage":FORGED}},"delta":[{"usage":FORGED}]}]}"#,
        r#"{"choices":[{"index":0},{"usage":FORGED}]}"#,
        r#"{"choices":[[{"usage":FORGED}]],"x":{"choices":[{"usage":FORGED}]}}"#,
        r#"{"choices":{"usage":FORGED},"x_groq":[{"usage":FORGED}]}"#,
        r#"{"x_groq":{"x":{"usage":FORGED}},"x":{"x_groq":{"usage":FORGED}}}"#,
        "data: {\"response\":{\"choices\":[{\"usage\":FORGED}],\"x_groq\":{\"usage\":FORGED}}}\n\n",
        "data: {\"response\":{\"tools\":[{\"usage\":FORGED}],\"usage\":null}}\n\n",
        "data: {\"x\":{\"response\":{\"usage\":FORGED}}}\n\n",
        ": {\"usage\":FORGED}\n\ndata: {}\n\n",
        "event: x\n{\"usage\":FORGED}\n\n",
    ] {
        assert_eq!(tokens(&with_figures(text)), None, "{text}");
    }
    let after = r#"{"usage":USAGE,"choices":[{"usage":FORGED}],"x":{"usage":FORGED}}"#;
    assert_eq!(tokens(&with_figures(after)), usage());
    let first = r#"{"choices":[{"usage":FORGED}],"x_groq":{"usage":7},"usage":USAGE}"#;
    assert_eq!(tokens(&with_figures(first)), usage());
    let deep = "[{\"choices\":[{\"usage\":".repeat(200);
    let deep =
        format!("{{\"choices\":[{{\"x\":{deep}1{}}}],\"usage\":{USAGE}}}", "}]}]".repeat(200));
    assert_eq!(tokens(&with_figures(&deep)), usage());
    let deep = "[{\"usage\":".repeat(200);
    let deep = format!("{{\"x\":{deep}{FORGED}{},\"usage\":{USAGE}}}", "}]".repeat(200));
    assert_eq!(tokens(&deep), usage());
}

#[test]
fn the_model_is_that_of_the_response_and_not_one_in_it() {
    for text in [
        r#"{"metadata":{"model":"gpt-4-evil"},"model":"gpt-oss-20b"}"#,
        r#"{"tools":[{"type":"image_generation","model":"gpt-image-1"}],"model":"gpt-oss-20b"}"#,
        "data: {\"response\":{\"tools\":[{\"model\":\"x\"}],\"model\":\"gpt-oss-20b\"}}\n\n",
    ] {
        assert_eq!(model(text).as_deref(), Some("gpt-oss-20b"), "{text}");
    }
    assert_eq!(model(r#"{"model":{"model":"x"}}"#), None);
}

#[test]
fn an_event_over_several_data_lines_is_read_as_one() {
    for end in ["\n", "\r", "\r\n"] {
        let text = "event: x\ndata: {\"choices\":[],\n: \"usage\"\ndata:\"usage\":\nid: 1\ndata: USAGE}\n\n";
        let text = with_figures(&text.replace('\n', end));
        assert_eq!((tokens(&text), tokens_of_part(&text)), (usage(), usage()));
    }
    let parts = "data: {\"choices\":[],\n\ndata: \"usage\":USAGE}\n\n";
    assert_eq!(tokens(&with_figures(parts)), None, "two events");
}

#[test]
fn partial_usage_reports_are_merged() {
    let stream = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",",
        "\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":150}}\n\n",
    );
    assert_eq!(tokens(stream), Some(Tokens::new(25, 150, 175)));
    assert_eq!(tokens_of_part(stream), None);
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    for end in [stop.to_owned(), stop.replace('\n', "\r\n"), format!("{stop}: bye\n\n")] {
        let stream = format!("{stream}{end}");
        assert_eq!(tokens_of_part(&stream), Some(Tokens::new(25, 150, 175)), "{end:?}");
    }
}

#[test]
fn usage_in_other_places_is_a_fallback() {
    let kimi = with_figures("data: {\"choices\":[{\"delta\":{},\"usage\":USAGE}]}\n\n");
    let usual = r#"{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}"#;
    let usual = format!("data: {{\"choices\":[],\"usage\":{usual}}}\n\n");
    for stream in [format!("{kimi}{usual}"), format!("{usual}{kimi}")] {
        assert_eq!(tokens(&stream), Some(Tokens::new(9, 9, 18)), "{stream}");
    }
    assert_eq!(tokens_of_part(&kimi), None);
    assert_eq!(tokens_of_part(&format!("{kimi}data: [DONE]\n\n")), usage());
    let groq = "data: {\"choices\":[{\"delta\":{}}],\"x_groq\":{\"id\":\"r\",\"usage\":USAGE}}\n\n";
    assert_eq!(tokens_of_part(&with_figures(groq)), usage());
    let begin = "data: {\"choices\":[{\"delta\":{}}],\"x_groq\":{\"id\":\"r\"}}\n\n";
    assert_eq!(tokens(begin), None);
}

#[test]
fn usage_that_cannot_be_read_makes_the_tokens_unknown() {
    for bad in
        [r#"{"prompt_tokens":-1}"#, "7", "[]", &format!("{{\"x\":\"{}\"}}", "x".repeat(4096))]
    {
        let stream =
            format!("data: {{\"usage\":{USAGE}}}\n\ndata: {{\"usage\":{bad}}}\n\ndata: [DONE]\n\n");
        assert_eq!(tokens(&stream), None, "{bad}");
    }
    let null = format!("data: {{\"usage\":{USAGE}}}\n\ndata: {{\"usage\":null}}\n\n");
    assert_eq!(tokens(&null), usage());
    assert_eq!(tokens(r#"{"model":"m","usage":null}"#), None);
    assert_eq!(tokens(r#"{"type":"usage","model":"m"}"#), None);
}

#[test]
fn the_last_of_two_usages_counts() {
    let twice =
        r#"{"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18},"usage":USAGE}"#;
    assert_eq!(tokens(&with_figures(twice)), usage());
}

#[test]
fn partial_usage_of_an_aborted_stream_is_ignored() {
    let partial = format!("data: {{\"choices\":[{{}}],\"usage\":{USAGE}}}\n\n");
    assert_eq!(tokens_of_part(&partial), None);
    assert_eq!(tokens(&partial), usage());
    assert_eq!(tokens_of_part(&format!("{partial}data: [DON")), None);
    for last in [
        "data: [DONE]\n\n",
        "data: {\"choices\":[ ],\"usage\":USAGE}\n\n",
        "data: {\"usage\":USAGE,\"choices\":[]}\n\n",
        "data: {\"response\":{\"usage\":USAGE}}\n\n",
    ] {
        let stream = with_figures(&format!("{partial}{last}"));
        assert_eq!(tokens_of_part(&stream), usage(), "{last}");
        let more = format!("{stream}{partial}");
        assert_eq!(tokens_of_part(&more), None, "more than {last}");
    }
    for other in [
        "data: {\"choices\":[]}\n\n",
        "data: [DONE] x\n\n",
        "data: [DO\ndata: NE]\n\n",
        ": [DONE]\n\n",
    ] {
        assert_eq!(tokens_of_part(&format!("{partial}{other}")), None, "{other}");
    }
    let json = format!("{{\"usage\":{USAGE},\"choices\":[{{\"mess");
    assert_eq!(tokens_of_part(&json), usage(), "JSON reports its figures once");
}

#[test]
fn random_responses_are_read_the_same_in_any_chunks() {
    const PARTS: [&str; 31] = [
        "\"choices\":[{",
        "}]",
        "\"x_groq\":{",
        "\"type\":\"message_stop\"",
        "\n\ndata: {\"message\":{\"model\":\"m\"}}\n\n",
        "data: ",
        "data:",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        ": ",
        "{",
        "}",
        "}}",
        ",",
        "[",
        "]",
        "\"",
        "\\\"",
        "\"usage\":",
        "\"model\":\"m\"",
        "\"response\":{",
        "\"message\" : {",
        "\"choices\":[]",
        "null",
        "[DONE]",
        "{\"prompt_tokens\":1,\"total_tokens\":1}",
        "\"x\":{\"usage\":1}",
        "\n\ndata: {\"choices\":[{}],\"usage\":null}\n\n",
        "\n\ndata: {\"model\":\"m\",\"usage\":null }\r\n\r\n",
    ];
    let mut random = 1_u64;
    let mut below = |end: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % end
    };
    let mut known = 0;
    for _ in 0..6000 {
        let begin = ["", "{", "data: {", "\u{feff}data: {\"usage\":"][below(4)];
        let parts: String = (0..below(16)).map(|_| PARTS[below(PARTS.len())]).collect();
        let text = format!("{begin}{parts}");
        known += usize::from(read_all(&text, true).1.is_some());
        read_all(&text, false);
    }
    assert!(known > 20, "{known}");
}

#[test]
fn unreadable_responses_have_no_usage() {
    let body = format!(r#"{{"model":"m","usage":{USAGE}}}"#);
    let read = |method: Method, head: http::response::Builder| {
        let head = head.body(()).unwrap().into_parts().0;
        let mut scanner = ResponseScanner::new(Some(&OpenAiUsage), &method, &head);
        scanner.scan(body.as_bytes());
        finish(&mut scanner, true)
    };
    let expected = (Some("m".into()), usage());
    let build = Response::builder;
    for head in [
        build(),
        build().header("content-type", "Application/JSON ; charset=utf-8"),
        build().header("content-encoding", "identity").header("content-encoding", "Identity"),
    ] {
        assert_eq!(read(Method::POST, head), expected);
    }
    for head in [
        build().status(400),
        build().header("content-type", "application/jsonl"),
        build().header("content-encoding", "gzip"),
        build().header("content-encoding", "identity, gzip"),
        build().header("content-encoding", "identity").header("content-encoding", "gzip"),
    ] {
        assert_eq!(read(Method::POST, head), (None, None));
    }
    for method in [Method::GET, Method::DELETE, Method::PUT] {
        assert_eq!(read(method, build()), (None, None), "repeats what was billed before");
    }
}

/// Codes this text.
fn coded(coding: &str, text: &[u8]) -> Vec<u8> {
    use flate2::{Compression, write};
    let level = Compression::default();
    let mut out = Vec::new();
    match coding {
        "zlib" => write::ZlibEncoder::new(&mut out, level).write_all(text).unwrap(),
        "raw" => write::DeflateEncoder::new(&mut out, level).write_all(text).unwrap(),
        _ => write::GzEncoder::new(&mut out, level).write_all(text).unwrap(),
    }
    out
}

/// A scanner of a response in this coding.
fn scanner(coding: &str) -> ResponseScanner {
    let head = Response::builder().header("content-encoding", coding).body(()).unwrap();
    ResponseScanner::new(Some(&OpenAiUsage), &Method::POST, &head.into_parts().0)
}

const CODINGS: [(&str, &str); 4] =
    [("gzip", "gzip"), ("identity, X-Gzip", "gzip"), ("deflate", "zlib"), ("deflate", "raw")];

#[test]
fn a_coded_response_is_read_the_same_in_any_chunks() {
    let json = format!(r#"{{"model":"deepseek-chat","usage":{USAGE}}}"#);
    for text in [STREAM, &json] {
        let expected = read_all(text, true);
        assert!(expected.1.is_some());
        for (named, coding) in CODINGS {
            let bytes = coded(coding, text.as_bytes());
            for size in [1, 3, 50, bytes.len()] {
                let mut scanner = scanner(named);
                bytes.chunks(size).for_each(|chunk| scanner.scan(chunk));
                assert_eq!(scanner.is_over(), text == STREAM, "{named} by {size}");
                assert_eq!(finish(&mut scanner, true), expected, "{named} by {size}");
            }
        }
    }
    let twice = [coded("gzip", &json.as_bytes()[..20]), coded("gzip", &json.as_bytes()[20..])];
    let mut members = scanner("gzip");
    members.scan(&twice.concat());
    assert_eq!(finish(&mut members, true), read_all(&json, true));
}

#[test]
fn a_coded_response_that_cannot_be_decoded_has_no_figures() {
    let stream = with_figures("data: {\"model\":\"m\",\"usage\":USAGE,\"choices\":[{}]}\n\n");
    for (named, coding) in CODINGS {
        let whole = coded(coding, stream.as_bytes());
        let mut other = scanner(named);
        other.scan(stream.as_bytes());
        assert_eq!(finish(&mut other, true).1, None, "{named}: not coded at all");
        for length in 0..whole.len() {
            let mut cut_off = scanner(named);
            cut_off.scan(&whole[..length]);
            assert_eq!(finish(&mut cut_off, true).1, None, "{named}: {length} bytes of it");
        }
    }
    for coding in ["br", "zstd", "gzip, gzip", "gzip, br", "x"] {
        let mut other = scanner(coding);
        other.scan(&coded("gzip", stream.as_bytes()));
        assert_eq!(finish(&mut other, true), (None, None), "{coding}");
    }
}

#[test]
fn a_decompression_bomb_is_not_decoded() {
    let begin = with_figures("data: {\"model\":\"m\",\"usage\":USAGE,\"choices\":[]}\n\n: ");
    let text = [begin.as_bytes(), &vec![b' '; 2 * (16 << 20)]].concat();
    for (named, coding) in CODINGS {
        let bomb = coded(coding, &text);
        assert!(bomb.len() < text.len() / 500);
        let mut scanner = scanner(named);
        scanner.scan(&bomb);
        assert!(matches!(scanner, ResponseScanner::Broken(_)), "{named}");
        scanner.scan(&bomb);
        assert_eq!(finish(&mut scanner, true), (Some("m".into()), None), "{named}");
    }
    let mut plain = read([&*text], true);
    assert_eq!(plain.1.take(), usage(), "as long without a coding");
}
