//! A Chinese document and its English twin say the same in the same order.

use std::collections::BTreeSet;

use super::document::{Block, Document, all};

/// Twins whose names do not show it: the user's procedure links the Chinese ones by these names.
const OTHER_NAMES: [(&str, &str); 2] = [
    ("docs/QUICKSTART.md", "docs/guides/quick-start.md"),
    ("docs/ADMIN-INTERFACE.md", "docs/guides/admin-page.md"),
];

/// Where two documents differ that are to be one in two languages.
pub(crate) fn differences(chinese: &Document, english: &Document) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |line: usize, twin: usize, what: &str| {
        faults.push(format!("{}:{line} and {}:{twin}: {what}", chinese.path, english.path));
    };
    let levels =
        |document: &Document| document.headings.iter().map(|h| h.level).collect::<Vec<_>>();
    if levels(chinese) != levels(english) {
        let pairs = chinese.headings.iter().zip(&english.headings);
        let differing = pairs.clone().find(|(ours, theirs)| ours.level != theirs.level);
        let (line, twin) = differing.map_or((0, 0), |(ours, theirs)| (ours.line, theirs.line));
        let (ours, theirs) = (chinese.headings.len(), english.headings.len());
        fault(line, twin, &format!("other sections ({ours} and {theirs} headings)"));
    }
    if chinese.blocks.len() != english.blocks.len() {
        let (ours, theirs) = (chinese.blocks.len(), english.blocks.len());
        fault(0, 0, &format!("{ours} and {theirs} blocks"));
    }
    for (ours, theirs) in chinese.blocks.iter().zip(&english.blocks) {
        if (&ours.language, kinds(ours)) != (&theirs.language, kinds(theirs)) {
            fault(ours.line, theirs.line, "another language or directive");
        } else if let Some((ours_says, theirs_says)) = other_command(ours, theirs) {
            fault(
                ours.line,
                theirs.line,
                &format!("other commands:\n    {ours_says}\n    {theirs_says}"),
            );
        }
    }
    let (ours, theirs) = (names(chinese), names(english));
    for name in theirs.difference(&ours) {
        faults.push(format!("{}: its twin mentions `{name}`, too", chinese.path));
    }
    faults
}

/// The settings, codes, metrics and fields that a document mentions.
fn names(document: &Document) -> BTreeSet<&str> {
    let is_word = |name: &&str| {
        name.contains('_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let names = document.names.iter().map(|(_, name)| name.as_str()).filter(is_word);
    // What a reader puts in is named in each language.
    names.filter(|name| !name.starts_with("YOUR_")).collect()
}

/// The directives, but for the files that they name.
fn kinds(block: &Block) -> Vec<std::mem::Discriminant<super::document::Directive>> {
    block.directives.iter().map(std::mem::discriminant).collect()
}

/// The first command that is another one. Comments may differ, and what stands in quotes on a line with
/// Chinese in it.
fn other_command(ours: &Block, theirs: &Block) -> Option<(String, String)> {
    if !["sh", "console"].contains(&ours.language.as_str()) {
        return None;
    }
    let (ours, theirs) = (commands(ours), commands(theirs));
    let longest = ours.len().max(theirs.len());
    let at = |lines: &[String], at: usize| lines.get(at).cloned().unwrap_or_default();
    (0..longest).map(|line| (at(&ours, line), at(&theirs, line))).find(|(ours, theirs)| {
        if ours.is_ascii() && theirs.is_ascii() {
            ours != theirs
        } else {
            unquoted(ours) != unquoted(theirs)
        }
    })
}

fn commands(block: &Block) -> Vec<String> {
    let is_console = block.language == "console";
    let lines = block.text.lines().filter(|line| !is_console || line.starts_with("$ "));
    let lines = lines.map(|line| match line.find(" #") {
        _ if line.starts_with('#') => "",
        Some(comment) => line[..comment].trim_end(),
        None => line.trim_end(),
    });
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn unquoted(line: &str) -> String {
    let mut quote = None;
    let kept = line.chars().filter(|&letter| match quote {
        Some(mark) if letter == mark => {
            quote = None;
            true
        }
        Some(_) => false,
        None => {
            quote = (['\'', '"'].contains(&letter)).then_some(letter);
            true
        }
    });
    kept.collect()
}

/// What operators need beside these folders.
const LOOKED_UP: [&str; 6] = [
    "README.md",
    "docs/README.md",
    "docs/admin-api.md",
    "docs/errors.md",
    "docs/gateway.md",
    "docs/import.md",
];

/// Whether operators who read Chinese only need this English document.
fn has_twin(path: &str) -> bool {
    let folders = ["docs/guides/", "docs/deploy/", "docs/operations/"];
    let is_needed =
        LOOKED_UP.contains(&path) || folders.iter().any(|folder| path.starts_with(folder));
    let has_other_name = OTHER_NAMES.iter().any(|(_, english)| *english == path);
    is_needed && !path.ends_with(".zh.md") && !has_other_name
}

#[test]
fn twins_have_the_same_sections_and_commands() {
    let documents = all();
    let find = |path: &str| documents.iter().find(|document| document.path == path);
    let mut faults = Vec::new();
    for chinese in documents.iter().filter(|document| document.is_chinese()) {
        match find(&chinese.path.replace(".zh.md", ".md")) {
            Some(english) => faults.extend(differences(chinese, english)),
            None => faults.push(format!("{}: no English twin beside it", chinese.path)),
        }
    }
    for english in documents.iter().filter(|document| has_twin(&document.path)) {
        if find(&english.path.replace(".md", ".zh.md")).is_none() {
            faults.push(format!("{}: no Chinese twin beside it", english.path));
        }
    }
    for (chinese, english) in OTHER_NAMES {
        if let (Some(chinese), Some(english)) = (find(chinese), find(english)) {
            faults.extend(differences(chinese, english));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
