//! Members of objects in any pieces.

use super::*;

const WANTED: Wanted = Wanted {
    members: &[
        Member { name: b"\"model\"", longest: 32 },
        Member { name: b"\"usage\"", longest: 64 },
    ],
    inner: &[
        Inner::Object(b"\"response\""),
        Inner::Object(b"\"message\""),
        Inner::FirstItem(b"\"choices\""),
    ],
};

/// Each member that is found, with the inner object that it is in, as text.
fn found<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut scanner = MemberScanner::new(&WANTED);
    let mut all = Vec::new();
    for chunk in chunks {
        scanner.scan(chunk, |Found { member, within, value }| {
            let name =
                str::from_utf8(WANTED.members[usize::from(member)].name).unwrap().trim_matches('"');
            let value = value.map_or("too long", |value| str::from_utf8(value).unwrap());
            let within = within
                .map_or("", |within| ["response.", "message.", "choice."][usize::from(within)]);
            all.push(format!("{within}{name}={value}"));
            ControlFlow::Continue(())
        });
    }
    all
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let bytes = text.as_bytes();
    assert_eq!(found([bytes]), expected, "{text}");
    assert_eq!(found(bytes.chunks(1)), expected, "{text}");
    for first in 0..bytes.len().min(300) {
        for second in (first..bytes.len()).step_by(3) {
            let chunks = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            assert_eq!(found(chunks), expected, "{text} at {first} and {second}");
        }
    }
}

#[test]
fn members_are_found_at_every_split() {
    check(
        r#" {"messages":[{"model":"no","content":"\"model\":\"no\" \\"}],"n":-1.5e3,
        "tools":{"model":"no"},"user":"model","model" : "gpt-\u0034\"o","usage":{"a":[1,{}]},"z":1}"#,
        &[r#"model="gpt-\u0034\"o""#, r#"usage={"a":[1,{}]}"#],
    );
}

#[test]
fn members_of_the_named_objects_are_found_and_none_that_lie_deeper() {
    check(
        r#"{"type":"t","response":{"tools":[{"model":1,"usage":{}}],"metadata":{"usage":1},
        "response":{"usage":2},"message":{"model":3},"model":"a"},"x":{"response":{"usage":4}},
        "message":{"usage":{}},"usage":null}"#,
        &["response.model=\"a\"", "message.usage={}", "usage=null"],
    );
    check(r#"{"response":null,"message":[{"usage":1}],"model":"a"}"#, &["model=\"a\""]);
    check(r#"{"response":{},"message":{ },"model":"a"}"#, &["model=\"a\""]);
}

#[test]
fn members_of_the_first_item_are_found_and_none_of_the_others() {
    check(
        r#"{"choices":[ {"usage":1,"delta":{"usage":2,"choices":[{"usage":3}]},"model":"a"},
        {"usage":4}, [{"usage":5}], "]", 6],"choices":[ ],"usage":7,"x":[{"usage":8}]}"#,
        &["choice.usage=1", "choice.model=\"a\"", "usage=7"],
    );
    check(r#"{"choices":[["x]",{"usage":1}],{"usage":2}],"model":"a"}"#, &["model=\"a\""]);
    check(r#"{"choices":["]",{"usage":1}],"model":"a"}"#, &["model=\"a\""]);
    check(r#"{"choices":[7,{"usage":1}],"model":"a"}"#, &["model=\"a\""]);
    check(r#"{"choices":[{}],"model":"a"}"#, &["model=\"a\""]);
    check(r#"{"choices":{"usage":1},"response":[{"usage":2}],"model":"a"}"#, &["model=\"a\""]);
    check(
        r#"{"response":{"choices":[{"usage":1}],"model":"b"},"model":"a"}"#,
        &["response.model=\"b\"", "model=\"a\""],
    );
    check(r#"{"choices":[,{"usage":1}],"model":"a"}"#, &[]);
}

#[test]
fn an_array_without_items_is_noticed() {
    for (text, empty) in [
        (r#"{"choices":[]"#, true),
        ("{\"choices\" : [ \n]}", true),
        (r#"{"choices":[{}],"choices":[]}"#, true),
        (r#"{"choices":[],"choices":[0]}"#, false),
        (r#"{"choices":[[]]}"#, false),
        (r#"{"choices":[{}]}"#, false),
        (r#"{"choices":["#, false),
        (r#"{"choices":null}"#, false),
        (r#"{"x":[],"response":{"choices":[]}}"#, false),
    ] {
        for size in [1, text.len()] {
            let mut scanner = MemberScanner::new(&WANTED);
            for chunk in text.as_bytes().chunks(size) {
                scanner.scan(chunk, |_| ControlFlow::Continue(()));
            }
            assert_eq!(scanner.is_empty(2), empty, "{text}");
        }
    }
}

#[test]
fn backslashes_are_told_apart() {
    check(r#"{"a":"\\","model":"m"}"#, &["model=\"m\""]);
    check(r#"{"a":"\\\"","model":"m"}"#, &["model=\"m\""]);
    check(r#"{"a":["\\\\\"\\"],"model":"m"}"#, &["model=\"m\""]);
    check(r#"{"a":"\\\",\"model\":\"m\"}"#, &[]);
}

#[test]
fn any_value_is_told_as_it_is_written() {
    check(
        r#"{"model":null,"model":-1.5e+3 ,"model":[ 1 ],"model":{},"model":true}"#,
        &["model=null", "model=-1.5e+3", "model=[ 1 ]", "model={}", "model=true"],
    );
}

#[test]
fn a_value_that_is_too_long_is_told_of() {
    for (length, value) in [(30, "x".repeat(30)), (31, "too long".into())] {
        let text = format!(r#"{{"model":"{}","usage":{{}}}}"#, "x".repeat(length));
        let value = if length == 30 { format!("\"{value}\"") } else { value };
        check(&text, &[&format!("model={value}"), "usage={}"]);
    }
}

#[test]
fn nothing_else_is_taken_for_a_member() {
    for text in [
        "",
        "{}",
        "{} {\"model\":\"x\"}",
        "x{\"model\":\"x\"}",
        r#"[{"model":"x"}]"#,
        r#""model":"x""#,
        r#"{"a":"model"}"#,
        r#"{"a":"model":"x"}"#,
        r#"{"a\"model":"x"}"#,
        r#"{"mode\u006c":"x"}"#,
        r#"{"a" "model":"x"}"#,
        r#"{"a":,"model":"x"}"#,
        r#"{"model":"x"#,
        r#"{"model":12"#,
        r#"{"a":{"model":"x"},"b":[{"model":"x"}]}"#,
    ] {
        check(text, &[]);
    }
}

#[test]
fn depth_costs_no_memory() {
    let deep = "[{\"usage\":".repeat(100_000);
    let text = format!("{{\"a\":{deep}1{},\"model\":\"m\"}}", "}]".repeat(100_000));
    assert_eq!(found([text.as_bytes()]), ["model=\"m\""]);
    let mut scanner = MemberScanner::new(&WANTED);
    for chunk in text.as_bytes().chunks(1000) {
        scanner.scan(chunk, |_| ControlFlow::Continue(()));
        assert!(scanner.kept.capacity() <= 64);
    }
}

#[test]
fn nothing_is_found_after_what_was_wanted() {
    let text = br#"{"model":"a","model":"b"}"#;
    for split in 0..text.len() {
        let mut scanner = MemberScanner::new(&WANTED);
        let mut all = 0;
        for chunk in [&text[..split], &text[split..]] {
            scanner.scan(chunk, |_| {
                all += 1;
                ControlFlow::Break(())
            });
        }
        assert_eq!(all, 1, "{split}");
        assert!(scanner.is_over());
    }
}
