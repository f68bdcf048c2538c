//! Finds a member of the outermost object of a JSON text that passes by in any chunks.

use memchr::memchr;

/// Finds the string that is the value of one member of the outermost object, in bounded memory.
/// Members of inner objects and text in strings are not taken for it.
#[derive(Debug)]
pub(super) struct TopMemberScanner {
    /// The member's name, with its quotes.
    name: &'static [u8],
    depth: u32,
    /// What the next string in the outermost object is.
    next: Next,
    string: Option<Text>,
    is_over: bool,
}

/// What a string in the outermost object is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    Name,
    /// The value of the member with this name, or of another.
    Value(bool),
}

/// A string that has begun.
#[derive(Debug)]
struct Text {
    /// Its bytes so far, quotes and escapes as they are, if it is of interest.
    kept: Option<Vec<u8>>,
    /// Whether its next byte is escaped.
    escaped: bool,
}

/// The longest string that is kept.
const LONGEST: usize = 256;

impl TopMemberScanner {
    /// Looks for `"model"`.
    pub(super) fn model() -> Self {
        let name = b"\"model\"";
        Self { name, depth: 0, next: Next::Name, string: None, is_over: false }
    }

    /// Whether nothing more can be found.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Scans the next chunk; gives the value once, when it is whole.
    pub(super) fn scan(&mut self, chunk: &[u8]) -> Option<String> {
        let mut rest = chunk;
        while !self.is_over && !rest.is_empty() {
            if let Some(string) = &mut self.string {
                let used = string.take(rest);
                let (taken, left) = rest.split_at(used.unwrap_or(rest.len()));
                string.keep(taken);
                rest = left;
                if used.is_some()
                    && let Some(value) = self.end_string()
                {
                    return Some(value);
                }
            } else {
                let (byte, left) = rest.split_first()?;
                self.step(*byte);
                rest = left;
            }
        }
        None
    }

    fn step(&mut self, byte: u8) {
        match byte {
            b'"' => {
                let is_of_interest = self.depth == 1 && self.next != Next::Value(false);
                let kept = is_of_interest.then(|| vec![byte]);
                self.string = Some(Text { kept, escaped: false });
            }
            b'{' | b'[' => {
                // The outermost value must be an object.
                self.is_over |= self.depth == 0 && byte == b'[';
                self.depth += 1;
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.is_over |= self.depth == 0;
            }
            b',' if self.depth == 1 => self.next = Next::Name,
            _ => {}
        }
    }

    /// A string is whole; gives the value if it is that.
    fn end_string(&mut self) -> Option<String> {
        let kept = self.string.take()?.kept;
        if self.depth != 1 {
            self.is_over |= self.depth == 0;
            return None;
        }
        match self.next {
            Next::Name => self.next = Next::Value(kept.as_deref() == Some(self.name)),
            Next::Value(true) => {
                self.is_over = true;
                return serde_json::from_slice(&kept?).ok();
            }
            Next::Value(false) => {}
        }
        None
    }
}

impl Text {
    /// How many of these bytes still belong to the string, if it ends within them. Quotes are rarer
    /// than escapes: each line of a prompt ends with one of those.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut from = 0;
        while let Some(found) = memchr(b'"', &bytes[from..]) {
            let at = from + found;
            if !self.is_escaped(&bytes[..at]) {
                return Some(at + 1);
            }
            from = at + 1;
        }
        self.escaped = self.is_escaped(bytes);
        None
    }

    /// Whether what follows these bytes is escaped.
    fn is_escaped(&self, before: &[u8]) -> bool {
        let run = before.iter().rev().take_while(|byte| **byte == b'\\').count();
        let carried = self.escaped && run == before.len();
        (run % 2 == 1) != carried
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(kept) = &mut self.kept {
            match kept.len() + bytes.len() <= LONGEST {
                true => kept.extend_from_slice(bytes),
                false => self.kept = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(chunks: &[&[u8]]) -> Option<String> {
        let mut scanner = TopMemberScanner::model();
        let found: Vec<String> = chunks.iter().filter_map(|chunk| scanner.scan(chunk)).collect();
        assert!(found.len() <= 1, "{found:?}");
        found.into_iter().next()
    }

    #[test]
    fn it_is_found_at_every_split() {
        let text = br#" {"messages":[{"model":"no","content":"\"model\":\"no\" \\"}],
            "tools":{"model":"no"},"user":"model","model" : "gpt-\u0034\"o","n":1}"#;
        for first in 0..text.len() {
            for second in first..text.len() {
                let chunks = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(model(&chunks).as_deref(), Some("gpt-4\"o"), "{first} {second}");
            }
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(model(&bytes).as_deref(), Some("gpt-4\"o"));
    }

    #[test]
    fn backslashes_are_told_apart_at_every_split() {
        for (text, found) in [
            (r#"{"a":"\\","model":"m"}"#, Some("m")),
            (r#"{"a":"\\\"","model":"m"}"#, Some("m")),
            (r#"{"a":"\\\\\"\\","model":"m"}"#, Some("m")),
            (r#"{"a":"\\\",\"model\":\"m\"}"#, None),
        ] {
            for first in 0..text.len() {
                for second in first..text.len() {
                    let bytes = text.as_bytes();
                    let chunks = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(model(&chunks).as_deref(), found, "{text} {first} {second}");
                }
            }
        }
    }

    #[test]
    fn nothing_else_is_taken_for_it() {
        let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(LONGEST));
        for text in [
            "",
            "{}",
            "{} {\"model\":\"x\"}",
            r#"[{"model":"x"}]"#,
            r#""model":"x""#,
            r#"{"model":null}"#,
            r#"{"model":1,"x":"y"}"#,
            r#"{"model":{"model":"x"}}"#,
            r#"{"model":["x"]}"#,
            r#"{"a":"model"}"#,
            r#"{"model":"x"#,
            &long,
        ] {
            assert_eq!(model(&[text.as_bytes()]), None, "{text}");
        }
    }
}
