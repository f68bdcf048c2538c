//! Finds members of a JSON object that arrives in any chunks.

use std::ops::ControlFlow;

use memchr::memchr;

/// The members that a [`MemberScanner`] finds. Names are in quotes; one that is written with escapes is
/// taken for another.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Members of the outermost object and of the inner objects.
    pub(crate) members: &'static [Member],
    /// Members of the outermost object that are looked into.
    pub(crate) inner: &'static [Inner],
}

/// A member of the outermost object that is looked into.
#[derive(Debug)]
pub(crate) enum Inner {
    /// The object of this name.
    Object(&'static [u8]),
    /// The first item of the array of this name, if it is an object.
    FirstItem(&'static [u8]),
    /// The array of this name, which is expected to be empty: anything else ends the scan.
    Empty(&'static [u8]),
}

impl Inner {
    fn name(&self) -> &'static [u8] {
        let (Self::Object(name) | Self::FirstItem(name) | Self::Empty(name)) = self;
        name
    }
}

/// A member to find.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: &'static [u8],
    /// Maximum length of its value in bytes.
    pub(crate) max_len: u16,
}

/// A member that was found.
#[derive(Debug, PartialEq)]
pub(crate) struct FoundMember<'a> {
    /// Index in [`Selection::members`].
    pub(crate) member: u8,
    /// Index in [`Selection::inner`] of the object that holds it; `None` for the outermost.
    pub(crate) inner: Option<u8>,
    /// The value as it is written; `None` if it is too long.
    pub(crate) value: Option<&'a [u8]>,
}

/// Finds members of the outermost object and of the selected inner ones. Members of other objects and
/// the contents of strings are never taken for them.
///
/// It copies a name or value only if that arrives in several chunks, so it takes no more memory than the
/// longest, at any depth. Members with the same name are all found.
#[derive(Debug)]
pub(crate) struct MemberScanner {
    selection: &'static Selection,
    /// The inner object that is being read.
    inner: Option<u8>,
    state: State,
    /// Meaning of the last name.
    name: Name,
    /// Whether a name was escaped or longer than any of the selection, so that it was not compared.
    has_unread_name: bool,
    /// Whether the next byte of a string is escaped.
    escaped: bool,
    /// Whether a string is open in a value that is skipped.
    in_string: bool,
    /// Number of objects and arrays that are open in a value that is skipped.
    depth: u64,
    /// The inner array that turned out to be empty.
    empty: Option<u8>,
    /// The part of a name or value that came in earlier chunks.
    buffer: Vec<u8>,
    /// Number of bytes that may still be added to the buffer; `None` if the name or value is not
    /// selected, or too long.
    capacity: Option<u16>,
}

/// What comes next in an object whose members are read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Object,
    Name,
    InName,
    Colon,
    Value,
    FirstItem,
    InString,
    /// The rest of an object or array.
    InNested,
    /// The rest of a number, `true`, `false` or `null`.
    InLiteral,
    Comma,
    /// Nothing: the object has ended, the scan was stopped, or this is not JSON.
    Over,
}

#[derive(Clone, Copy, Debug)]
enum Name {
    Member(u8),
    Inner(u8),
    Other,
}

/// Maximum length of the names of a selection in bytes.
const MAX_NAME_LEN: u16 = 32;

impl MemberScanner {
    pub(crate) fn new(selection: &'static Selection) -> Self {
        Self {
            selection,
            inner: None,
            state: State::Object,
            name: Name::Other,
            has_unread_name: false,
            escaped: false,
            in_string: false,
            depth: 0,
            empty: None,
            buffer: Vec::new(),
            capacity: None,
        }
    }

    /// Starts over, with another object.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.selection);
    }

    /// Returns whether nothing of the object has arrived.
    pub(crate) fn is_at_start(&self) -> bool {
        self.state == State::Object
    }

    /// Returns whether this inner array is empty.
    pub(crate) fn is_empty(&self, inner: u8) -> bool {
        self.empty == Some(inner)
    }

    /// Returns whether a name was escaped, or longer than any of the selection: it may be one of these.
    pub(crate) fn has_unread_name(&self) -> bool {
        self.has_unread_name
    }

    /// Returns whether nothing more can be found.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Scans the next chunk and calls `found` for each member whose value ends in it, until that breaks.
    pub(crate) fn scan(
        &mut self,
        chunk: &[u8],
        mut found: impl FnMut(FoundMember<'_>) -> ControlFlow<()>,
    ) {
        // Where in this chunk the name or value begins that may have to be copied.
        let mut begin = 0;
        let mut at = 0;
        while at < chunk.len() {
            let rest = &chunk[at..];
            let length = match self.state {
                State::Over => return,
                State::InName | State::InString => self.string_end(rest),
                State::InNested => self.nested_end(rest),
                State::InLiteral => rest.iter().position(|&byte| ends_literal(byte)),
                _ => {
                    self.step(rest[0]);
                    begin = at;
                    at += 1;
                    continue;
                }
            };
            let Some(length) = length else { break };
            at += length;
            match self.state {
                State::InName => self.end_name(&chunk[begin..at]),
                _ => self.end_value(&chunk[begin..at], &mut found),
            }
        }
        self.copy(&chunk[begin..]);
    }

    /// Reads a byte of the structure.
    fn step(&mut self, byte: u8) {
        self.state = match self.state {
            State::Object if byte == b'{' => State::Name,
            State::Name if byte == b'"' => {
                self.capacity = Some(MAX_NAME_LEN);
                State::InName
            }
            State::Colon if byte == b':' => State::Value,
            State::Comma if byte == b',' => State::Name,
            state if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => state,
            State::Value => self.begin_value(byte),
            State::FirstItem => self.begin_item(byte),
            State::Name | State::Comma if byte == b'}' => self.end_object(),
            _ => State::Over,
        }
    }

    fn begin_value(&mut self, byte: u8) -> State {
        self.capacity = match self.name {
            Name::Member(member) => Some(self.selection.members[usize::from(member)].max_len),
            _ => None,
        };
        let inner = match self.name {
            Name::Inner(inner) => Some((inner, &self.selection.inner[usize::from(inner)])),
            _ => None,
        };
        match (byte, inner) {
            (b'{', Some((inner, Inner::Object(_)))) => {
                self.inner = Some(inner);
                State::Name
            }
            (b'[', Some((_, Inner::FirstItem(_) | Inner::Empty(_)))) => State::FirstItem,
            (_, Some((_, Inner::Empty(_)))) => State::Over,
            (b'{' | b'[', _) => {
                self.depth = 1;
                State::InNested
            }
            (b'"', _) => State::InString,
            (b'}' | b']' | b',' | b':', _) => State::Over,
            _ => State::InLiteral,
        }
    }

    /// Begins the first item of an array that is looked into.
    fn begin_item(&mut self, byte: u8) -> State {
        let Name::Inner(inner) = self.name else { return State::Over };
        self.empty = (byte == b']').then_some(inner);
        if self.empty.is_some() {
            return State::Comma;
        }
        if let Inner::Empty(_) = self.selection.inner[usize::from(inner)] {
            return State::Over;
        }
        self.depth = 1;
        match byte {
            b'{' => {
                self.inner = Some(inner);
                return State::Name;
            }
            b'[' => self.depth = 2,
            b'"' => self.in_string = true,
            b'}' | b',' | b':' => return State::Over,
            _ => {}
        }
        State::InNested
    }

    /// Returns what comes after the end of an object.
    fn end_object(&mut self) -> State {
        let Some(inner) = self.inner.take() else { return State::Over };
        self.name = Name::Other;
        match self.selection.inner[usize::from(inner)] {
            Inner::Object(_) | Inner::Empty(_) => State::Comma,
            Inner::FirstItem(_) => {
                self.depth = 1;
                State::InNested
            }
        }
    }

    fn end_name(&mut self, end: &[u8]) {
        let (selection, is_outermost) = (self.selection, self.inner.is_none());
        let name = self.whole(end);
        let is_unread = name.is_none_or(|name| name.contains(&b'\\'));
        let name = name.unwrap_or_default();
        let member = (0..).zip(selection.members).find(|(_, member)| member.name == name);
        let inner =
            || (0..).zip(selection.inner).find(|(_, inner)| inner.name() == name && is_outermost);
        let name = match member {
            Some((at, _)) => Name::Member(at),
            None => inner().map_or(Name::Other, |(at, _)| Name::Inner(at)),
        };
        self.name = name;
        self.has_unread_name |= is_unread;
        self.end_text(State::Colon);
    }

    fn end_value(
        &mut self,
        end: &[u8],
        found: &mut impl FnMut(FoundMember<'_>) -> ControlFlow<()>,
    ) {
        let mut state = State::Comma;
        if let Name::Member(member) = self.name {
            let inner = self.inner;
            if found(FoundMember { member, inner, value: self.whole(end) }).is_break() {
                state = State::Over;
            }
        }
        self.end_text(state);
    }

    /// Returns the name or value that ends with these bytes, unless it is too long.
    fn whole<'a>(&'a mut self, end: &'a [u8]) -> Option<&'a [u8]> {
        if end.len() > self.capacity?.into() {
            return None;
        }
        if self.buffer.is_empty() {
            return Some(end);
        }
        self.buffer.extend_from_slice(end);
        Some(&self.buffer)
    }

    /// Copies these bytes of a name or value that continues in the next chunk.
    fn copy(&mut self, bytes: &[u8]) {
        let Some(capacity) = self.capacity else { return };
        let length = u16::try_from(bytes.len()).ok();
        self.capacity = length.and_then(|length| capacity.checked_sub(length));
        match self.capacity {
            Some(_) => self.buffer.extend_from_slice(bytes),
            None => self.buffer = Vec::new(),
        }
    }

    fn end_text(&mut self, state: State) {
        self.state = state;
        self.capacity = None;
        self.buffer.clear();
    }

    /// Returns how many of these bytes belong to the object or array, if it ends within them.
    fn nested_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            if self.in_string {
                at += self.string_end(&bytes[at..])?;
                self.in_string = false;
            }
            at += 1 + bytes[at..].iter().position(|&byte| is_structure(byte))?;
            match bytes[at - 1] {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                _ => self.depth -= 1,
            }
            if self.depth == 0 {
                return Some(at);
            }
        }
    }

    /// Returns how many of these bytes belong to the string, if it ends within them. Quotes are searched,
    /// as they are rarer than escapes: each line of a prompt ends with one of those.
    fn string_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut from = 0;
        while let Some(found) = memchr(b'"', &bytes[from..]) {
            let at = from + found;
            if !self.is_escaped(&bytes[..at]) {
                self.escaped = false;
                return Some(at + 1);
            }
            from = at + 1;
        }
        self.escaped = self.is_escaped(bytes);
        None
    }

    /// Returns whether what follows these bytes of a string is escaped.
    fn is_escaped(&self, before: &[u8]) -> bool {
        let run = before.iter().rev().take_while(|byte| **byte == b'\\').count();
        let carried = self.escaped && run == before.len();
        (run % 2 == 1) != carried
    }
}

/// Returns whether a string, object or array begins or ends here.
fn is_structure(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')
}

fn ends_literal(byte: u8) -> bool {
    matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELECTION: Selection = Selection {
        members: &[
            Member { name: b"\"model\"", max_len: 32 },
            Member { name: b"\"usage\"", max_len: 64 },
        ],
        inner: &[
            Inner::Object(b"\"response\""),
            Inner::Object(b"\"message\""),
            Inner::FirstItem(b"\"choices\""),
        ],
    };

    /// Each member that is found, with the inner object that holds it, as text.
    fn found<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut scanner = MemberScanner::new(&SELECTION);
        let mut all = Vec::new();
        for chunk in chunks {
            scanner.scan(chunk, |FoundMember { member, inner, value }| {
                let name = str::from_utf8(SELECTION.members[usize::from(member)].name)
                    .unwrap()
                    .trim_matches('"');
                let value = value.map_or("too long", |value| str::from_utf8(value).unwrap());
                let inner = inner
                    .map_or("", |inner| ["response.", "message.", "choice."][usize::from(inner)]);
                all.push(format!("{inner}{name}={value}"));
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
    fn only_direct_members_of_the_named_objects_are_found() {
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
    fn an_empty_array_is_reported() {
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
                let mut scanner = MemberScanner::new(&SELECTION);
                for chunk in text.as_bytes().chunks(size) {
                    scanner.scan(chunk, |_| ControlFlow::Continue(()));
                }
                assert_eq!(scanner.is_empty(2), empty, "{text}");
            }
        }
    }

    #[test]
    fn escaped_quotes_are_distinguished() {
        check(r#"{"a":"\\","model":"m"}"#, &["model=\"m\""]);
        check(r#"{"a":"\\\"","model":"m"}"#, &["model=\"m\""]);
        check(r#"{"a":["\\\\\"\\"],"model":"m"}"#, &["model=\"m\""]);
        check(r#"{"a":"\\\",\"model\":\"m\"}"#, &[]);
    }

    #[test]
    fn any_value_is_found_as_it_is_written() {
        check(
            r#"{"model":null,"model":-1.5e+3 ,"model":[ 1 ],"model":{},"model":true}"#,
            &["model=null", "model=-1.5e+3", "model=[ 1 ]", "model={}", "model=true"],
        );
    }

    #[test]
    fn a_value_that_is_too_long_is_reported_without_it() {
        for (length, value) in [(30, "x".repeat(30)), (31, "too long".into())] {
            let text = format!(r#"{{"model":"{}","usage":{{}}}}"#, "x".repeat(length));
            let value = if length == 30 { format!("\"{value}\"") } else { value };
            check(&text, &[&format!("model={value}"), "usage={}"]);
        }
    }

    #[test]
    fn text_that_looks_like_a_member_is_ignored() {
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
    fn nesting_depth_uses_no_memory() {
        let deep = "[{\"usage\":".repeat(100_000);
        let text = format!("{{\"a\":{deep}1{},\"model\":\"m\"}}", "}]".repeat(100_000));
        assert_eq!(found([text.as_bytes()]), ["model=\"m\""]);
        let mut scanner = MemberScanner::new(&SELECTION);
        for chunk in text.as_bytes().chunks(1000) {
            scanner.scan(chunk, |_| ControlFlow::Continue(()));
            assert!(scanner.buffer.capacity() <= 64);
        }
    }

    #[test]
    fn nothing_is_found_after_the_scan_was_stopped() {
        let text = br#"{"model":"a","model":"b"}"#;
        for split in 0..text.len() {
            let mut scanner = MemberScanner::new(&SELECTION);
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

    #[test]
    fn anything_but_an_empty_array_ends_the_scan_where_one_is_expected() {
        const EMPTY: Selection = Selection { members: &[], inner: &[Inner::Empty(b"\"choices\"")] };
        for (text, is_over, is_empty, has_unread_name) in [
            (r#"{"a":{"choices":[1]},"b":"","choices":["#, false, false, false),
            (r#"{"choices": [ ] ,"#, false, true, false),
            (r#"{"choices":[]}"#, true, true, false),
            (r#"{"choices":[{"#, true, false, false),
            (r#"{"choices":[],"choices":[1"#, true, false, false),
            (r#"{"choices":n"#, true, false, false),
            ("{}", true, false, false),
            (r#"{"\u0063hoices":[1"#, false, false, true),
        ] {
            for size in [1, text.len()] {
                let mut scanner = MemberScanner::new(&EMPTY);
                for chunk in text.as_bytes().chunks(size) {
                    scanner.scan(chunk, |_| ControlFlow::Continue(()));
                }
                let seen = (scanner.is_over(), scanner.is_empty(0), scanner.has_unread_name());
                assert_eq!(seen, (is_over, is_empty, has_unread_name), "{text}");
            }
        }
    }
}
