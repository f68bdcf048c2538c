//! Links lead somewhere.

use std::path::{Component, Path, PathBuf};

use super::document::{Document, ROOT, all};

/// What is wrong with the links of a document.
pub(crate) fn dead_links(document: &Document) -> Vec<String> {
    let faults = document.links.iter().filter_map(|link| {
        let why = dead(document, &link.target)?;
        Some(format!("{}:{}: {why}: {}", document.path, link.line, link.target))
    });
    faults.collect()
}

fn dead(document: &Document, target: &str) -> Option<String> {
    if let Some((scheme, _)) = target.split_once(':')
        && scheme.chars().all(|letter| letter.is_ascii_alphanumeric())
    {
        let known = ["https", "http", "mailto"].contains(&scheme);
        return (!known).then(|| format!("a link by {scheme}"));
    }
    let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
    let path = decoded(path);
    let folder = Path::new(&document.path).parent().unwrap();
    let Some(file) = normalized(&folder.join(&path)) else {
        return Some("a link out of the repository".to_owned());
    };
    let file = if path.is_empty() { PathBuf::from(&document.path) } else { file };
    let full = Path::new(ROOT).join(&file);
    if !full.exists() && file != Path::new(&document.path) {
        return Some(format!("there is no {}", file.display()));
    }
    if fragment.is_empty() || file.extension().is_none_or(|extension| extension != "md") {
        return None;
    }
    let fragment = decoded(fragment);
    let found = if file == Path::new(&document.path) {
        document.anchors.contains(&fragment)
    } else {
        Document::read(file.to_str().unwrap()).anchors.contains(&fragment)
    };
    (!found).then(|| format!("{} has no heading #{fragment}", file.display()))
}

/// The path without `.` and `..`; `None` if it leaves the root.
fn normalized(path: &Path) -> Option<PathBuf> {
    let mut normalized = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normalized.push(name),
            Component::CurDir => {}
            Component::ParentDir if normalized.pop() => {}
            _ => return None,
        }
    }
    Some(normalized)
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(escaped) if byte == b'%' => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn no_document_has_a_dead_link() {
    let procedure = Document::read("docs/trial-key-process.zh.md");
    let dead: Vec<String> = all().iter().chain([&procedure]).flat_map(dead_links).collect();
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

/// A document in one language is named by one of them.
#[test]
fn the_indexes_name_each_document() {
    let named = |index: &str| -> Vec<PathBuf> {
        let links = Document::read(index).links.into_iter();
        let paths = links.filter_map(|link| {
            normalized(&Path::new("docs").join(link.target.split('#').next().unwrap()))
        });
        paths.collect()
    };
    let named = [named("docs/README.md"), named("docs/README.zh.md")].concat();
    let decisions = Path::new("docs/decisions");
    let missing: Vec<String> = all()
        .into_iter()
        .map(|document| document.path)
        .filter(|path| path.starts_with("docs/") && !path.starts_with("docs/README"))
        .filter(|path| !Path::new(path).starts_with(decisions) && !named.contains(&path.into()))
        .collect();
    assert!(missing.is_empty(), "in no index (docs/README.md): {}", missing.join(", "));
}
