//! Checks of a page: its markup, its texts, and its words for error codes.

use std::collections::{BTreeMap, BTreeSet};

use http::header;

use super::{Page, Part, source_hash};
use crate::error::catalog::{self, ErrorCode};

/// Codes of requests that ended without a rejection.
const OTHER_CODES: [&str; 1] = ["client_gone"];

#[test]
fn a_source_hash_is_base64_of_sha_256() {
    assert_eq!(source_hash(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
}

/// The texts of a page: its own, and those by error code in groups such as `problems`.
#[derive(Default)]
pub(crate) struct Texts {
    names: BTreeSet<String>,
    groups: BTreeMap<String, BTreeSet<String>>,
}

impl Texts {
    /// Reads the texts that the scripts of these parts add. Panics unless each has one name and is
    /// there in both languages.
    pub(crate) fn of(parts: &[Part]) -> Self {
        let mut texts = Self::default();
        let script: String = parts.iter().map(|part| part.script).collect();
        for block in script.split("\naddTexts({").skip(1) {
            for (name, value) in entries(block) {
                if let Some(group) = value.strip_prefix('{') {
                    texts.add_group(name, group);
                } else {
                    assert_is_pair(&name, value);
                    assert!(texts.names.insert(name.clone()), "{name} has two texts");
                }
            }
        }
        for block in script.split("\naddProblems({").skip(1) {
            texts.add_group("problems".to_owned(), block);
        }
        texts
    }

    fn add_group(&mut self, group: String, block: &str) {
        let known = self.groups.entry(group).or_default();
        for (name, value) in entries(block) {
            assert_is_pair(&name, value);
            assert!(known.insert(name.clone()), "{name} has two texts");
        }
    }

    /// Panics unless this group has a text for each of these names, and no other.
    #[cfg(feature = "admin")]
    pub(crate) fn assert_group(&self, group: &str, names: &[&str]) {
        assert!(self.groups[group].iter().eq(&BTreeSet::from_iter(names.iter().copied())));
    }

    /// Panics unless each of these codes has words in the group, and each code there exists.
    pub(crate) fn assert_words(&self, group: &str, codes: &[&[ErrorCode]]) {
        let words = &self.groups[group];
        for code in codes.iter().copied().flatten() {
            assert!(words.contains(code.code()), "{group} of {} are missing", code.code());
        }
        let mut known = catalog::ALL.iter().copied().flatten();
        for name in words.iter().filter(|name| name.contains('_')) {
            let exists = known.clone().any(|code| code.code() == name);
            assert!(exists || OTHER_CODES.contains(&name.as_str()), "there is no code {name}");
        }
        assert!(known.all(|code| code.code().contains('_')));
    }
}

/// Panics unless the page holds nothing to replace, contains style and script as its policy expects
/// them, and has each text that its markup and script name.
pub(crate) fn assert_page(page: &Page, parts: &[Part]) {
    let html = std::str::from_utf8(&page.html).unwrap();
    assert!(!html.contains("{{"));
    assert_eq!(html.matches("<body").count(), 1);
    let response = page.response();
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    // A closing tag within the script would end the element early, and not match the hash.
    for (begin, end) in [("<style>", "</style>"), ("<script type=\"module\">", "</script>")] {
        let (_, rest) = html.split_once(begin).unwrap();
        assert!(policy.contains(&source_hash(rest.split_once(end).unwrap().0)), "{begin}");
    }
    let texts = Texts::of(parts);
    let problems = &texts.groups["problems"];
    for name in
        literals(html, &["data-text=\"", "data-label=\"", "data-placeholder=\"", " text(\""])
    {
        assert!(texts.names.contains(name), "no text {name}");
    }
    for name in literals(html, &["new Problem(\""]).filter(|name| *name != "signedOut") {
        assert!(problems.contains(name), "no words for the problem {name}");
    }
}

/// Returns what stands between one of these beginnings and the next quote.
fn literals<'a>(text: &'a str, beginnings: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let after = beginnings.iter().flat_map(|beginning| text.split(beginning).skip(1));
    after.filter_map(|rest| Some(rest.split_once('"')?.0))
}

fn assert_is_pair(name: &str, value: &str) {
    let pair = value.strip_prefix('[').map(items).unwrap_or_default();
    let is_function = |text: &&str| text.starts_with('(');
    assert!(
        pair.len() == 2 && pair.iter().filter(|text| is_function(text)).count() != 1,
        "{name} is not a text in two languages: {value}"
    );
}

/// Returns names and values of a JavaScript object, after its opening brace.
fn entries(object: &str) -> impl Iterator<Item = (String, &str)> {
    items(object).into_iter().map(|item| {
        // A name in quotes may have dots, but no colon.
        let (name, value) = item.split_once(':').unwrap_or_else(|| panic!("no name: {item}"));
        (name.trim_matches('"').to_owned(), value.trim_start())
    })
}

/// Splits a JavaScript list at its commas, up to the bracket that closes it.
fn items(list: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let mut open = Vec::new();
    let (mut start, mut is_escaped) = (0, false);
    for (at, letter) in list.char_indices() {
        let quote = open.last().copied().filter(|quote| "\"`".contains(*quote));
        if std::mem::take(&mut is_escaped) {
            continue;
        }
        match (quote, letter) {
            (Some(_), '\\') => is_escaped = true,
            (Some(quote), _) if letter == quote => _ = open.pop(),
            (Some('`'), '{') if list[..at].ends_with('$') => open.push('{'),
            (Some(_), _) => {}
            (None, '"' | '`' | '(' | '[' | '{') => open.push(letter),
            (None, ',' | ')' | ']' | '}') if open.is_empty() => {
                items.push(list[start..at].trim());
                start = at + 1;
                if letter != ',' {
                    break;
                }
            }
            (None, ')' | ']' | '}') => _ = open.pop(),
            (None, _) => {}
        }
    }
    items.retain(|item| !item.is_empty());
    items
}
