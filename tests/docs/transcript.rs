//! What a terminal shows: commands behind `$ `, and what they print.

pub(crate) struct Entry {
    /// Number of its first line in the block, from 0.
    pub(crate) line: usize,
    pub(crate) command: String,
    pub(crate) printed: String,
}

/// The commands of a transcript. A command goes on behind a line that ends in `\`, or in lines that
/// begin with `> `.
pub(crate) fn entries(transcript: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut goes_on = false;
    for (line, text) in transcript.lines().enumerate() {
        if let Some(command) = text.strip_prefix("$ ") {
            let command = format!("{command}\n");
            entries.push(Entry { line, command, printed: String::new() });
        } else if let Some(entry) = entries.last_mut() {
            let more = text.strip_prefix("> ").filter(|_| entry.printed.is_empty());
            if goes_on || more.is_some() {
                entry.command += &format!("{}\n", more.unwrap_or(text));
            } else {
                entry.printed += &format!("{text}\n");
                continue;
            }
        }
        goes_on = text.ends_with('\\');
    }
    entries
}

/// Whether `text` is `pattern` with something in place of each `…`. In JSON white space does not matter.
pub(crate) fn matches(pattern: &str, text: &str, is_json: bool) -> bool {
    if is_json {
        let compact = |text: &str| text.split_whitespace().collect::<String>();
        return matches(&compact(pattern), &compact(text), false);
    }
    let mut parts = pattern.trim_end().split('…');
    let Some(mut rest) = text.trim_end().strip_prefix(parts.next().unwrap()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}
