//! The modules of `src` depend on each other in one direction only, and the picture in docs/architecture.md shows
//! how.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::document::{Document, ROOT};

/// The modules, each level above those that it may use. Only modules of the first may use each other.
const LEVELS: &[&[&str]] = &[
    &["body", "clock", "content", "copies", "error", "key", "limit", "metrics", "page"],
    &["request"],
    &["store"],
    &["admin::store", "store::engine"],
    &["store::memory", "store::sqlite", "store::postgres"],
    &["store::migration"],
    &["admin", "auth", "proxy", "quota", "server", "usage"],
    &["openai"],
];

/// Imports that the levels allow and that nothing may have: a proxy forwards without knowing what is
/// counted, and layers know the traits of stores only.
const FORBIDDEN: &[(&str, &str)] = &[("proxy", "store")];

/// Imports that the levels do not allow, and why they are there.
const EXCEPTIONS: &[(&str, &str)] = &[
    // `RequestContext` holds values of the traits: `QuotaStatus`, `UsageEvent`, `Admission`.
    ("request", "store"),
];

type Imports = BTreeMap<(String, String), BTreeSet<String>>;

/// Which module imports from which, and the files that do. What is compiled for tests only is left out.
fn imports() -> Imports {
    let mut imports = Imports::new();
    let root = Path::new(ROOT).join("src");
    collect(&root, &[], &mut imports);
    imports
}

fn collect(folder: &Path, module: &[&str], imports: &mut Imports) {
    let entries: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let is_rust = |path: &&std::path::PathBuf| path.extension().is_some_and(|kind| kind == "rs");
    let sources: Vec<_> = entries
        .iter()
        .filter(is_rust)
        .map(|path| (path, fs::read_to_string(path).unwrap()))
        .collect();
    let of_tests: Vec<&str> = sources.iter().flat_map(|(_, source)| test_modules(source)).collect();
    for (path, source) in &sources {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let of_folder = ["lib", "mod"].contains(&name);
        if module.is_empty() && of_folder || of_tests.contains(&name) {
            continue;
        }
        let module = if of_folder { module.to_vec() } else { [module, &[name]].concat() };
        let from = level_name(&module);
        for to in paths(source, &module) {
            if to != from {
                let files = imports.entry((from.clone(), to)).or_default();
                files.insert(path.strip_prefix(ROOT).unwrap().display().to_string());
            }
        }
    }
    for path in entries.iter().filter(|path| path.is_dir()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if !of_tests.contains(&name) {
            collect(path, &[module, &[name]].concat(), imports);
        }
    }
}

/// The modules in files of their own that are compiled for tests only.
fn test_modules(source: &str) -> impl Iterator<Item = &str> {
    let pairs = source.lines().zip(source.lines().skip(1));
    pairs.filter(|(attribute, _)| is_for_tests(attribute)).filter_map(|(_, line)| {
        line.trim_start_matches("pub(crate) ").strip_prefix("mod ")?.strip_suffix(';')
    })
}

fn is_for_tests(attribute: &str) -> bool {
    ["#[cfg(test)]", "#[cfg(all(test", "#[cfg(any(test", "#[cfg(all(model", "#[cfg(model"]
        .iter()
        .any(|begin| attribute.trim().starts_with(begin))
}

/// The name of [`LEVELS`] that a module belongs to.
fn level_name(module: &[&str]) -> String {
    let of_store = ["engine", "memory", "migration", "sqlite", "postgres"];
    match module {
        ["store", part, ..] if of_store.contains(part) => format!("store::{part}"),
        ["admin", "store", ..] => "admin::store".to_owned(),
        [first, ..] => (*first).to_owned(),
        [] => String::new(),
    }
}

/// What the code of a module names by `crate::` and `super::`.
fn paths(source: &str, module: &[&str]) -> BTreeSet<String> {
    let code = code(source);
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        tree(&code[at + "crate::".len()..], &[], &mut named);
    }
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let mut rest = &code[at..];
        let mut base = module;
        while let Some(inner) = rest.strip_prefix("super::") {
            (rest, base) = (inner, &base[..base.len().saturating_sub(1)]);
        }
        tree(rest, base, &mut named);
    }
    named.remove("");
    named
}

/// A source without comments and without the tests at its end.
fn code(source: &str) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        is_for_tests(pair[0]) && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    let lines = &lines[..tests.unwrap_or(lines.len())];
    let lines = lines.iter().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Collects the paths of a tree as in `a::{b, c::d}` and returns what is behind it.
fn tree<'a>(text: &'a str, prefix: &[&str], named: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = tree(rest, prefix, named).trim_start();
            rest = match rest.strip_prefix(',') {
                Some(rest) if !rest.trim_start().starts_with('}') => rest,
                Some(rest) => rest.trim_start(),
                None => return rest.strip_prefix('}').unwrap_or(rest),
            };
        }
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = [prefix, &[name]].concat();
    match rest.strip_prefix("::") {
        Some(rest) => tree(rest, &path, named),
        None => {
            named.insert(level_name(&path));
            rest
        }
    }
}

fn level(module: &str) -> usize {
    let level = LEVELS.iter().position(|level| level.contains(&module));
    level.unwrap_or_else(|| panic!("{module} is on no level"))
}

fn is_allowed(from: &str, to: &str) -> bool {
    let is_back_end = |module: &str| module.starts_with("store::");
    let is_below = level(to) < level(from) || level(from) == 0 && level(to) == 0;
    is_below && (is_back_end(from) || !is_back_end(to)) && !FORBIDDEN.contains(&(from, to))
}

#[test]
fn modules_import_from_lower_levels_only() {
    let imports = imports();
    for ((from, to), files) in &imports {
        let is_exception = EXCEPTIONS.contains(&(from.as_str(), to.as_str()));
        assert!(is_allowed(from, to) || is_exception, "{from} imports from {to}: {files:?}");
    }
    for (from, to) in EXCEPTIONS {
        let is_needed = imports.contains_key(&((*from).to_owned(), (*to).to_owned()));
        assert!(is_needed && !is_allowed(from, to), "{from} to {to} is no exception any more");
    }
}

#[test]
fn the_engine_does_not_know_its_back_ends() {
    let mut folders = vec![Path::new(ROOT).join("src/store/engine")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let source = fs::read_to_string(&path).unwrap();
                for driver in ["rusqlite", "tokio_postgres"] {
                    assert!(!code(&source).contains(driver), "{}", path.display());
                }
            }
        }
    }
}

/// The arrows of the picture.
fn arrows() -> BTreeSet<(String, String)> {
    let document = Document::read("docs/architecture.md");
    let picture = document.blocks.iter().find(|block| block.language == "mermaid");
    let lines = picture.expect("a picture").text.lines();
    let arrows = lines.filter_map(|line| line.split_once("-->"));
    // `store_engine["store::engine"]` stands for a name that Mermaid does not take.
    let name = |text: &str| text.split('[').next().unwrap().trim().replace('_', "::");
    arrows.flat_map(|(from, to)| to.split('&').map(move |to| (name(from), name(to)))).collect()
}

fn reaches(from: &str, to: &str, arrows: &BTreeSet<(String, String)>) -> bool {
    let next = arrows.iter().filter(|(begin, _)| begin == from);
    next.map(|(_, end)| end).any(|end| end == to || reaches(end, to, arrows))
}

#[test]
fn the_picture_matches_the_imports() {
    let (imports, arrows) = (imports(), arrows());
    for ((from, to), files) in &imports {
        assert!(reaches(from, to, &arrows), "no path from {from} to {to}: {files:?}");
    }
    for arrow in &arrows {
        assert!(imports.contains_key(arrow), "{arrow:?} is no import");
        let mut others = arrows.clone();
        others.remove(arrow);
        assert!(!reaches(&arrow.0, &arrow.1, &others), "{arrow:?} can be left out");
    }
}

#[test]
fn imports_are_found() {
    let source = "use crate::{auth::{A, b::C}, store::engine::D,};\n// crate::proxy::E\n\
                  fn f() { super::super::quota::G }\n#[cfg(test)]\nmod tests {\n    use crate::admin;\n}";
    let named = paths(source, &["store", "sqlite"]);
    assert_eq!(named.into_iter().collect::<Vec<_>>(), ["auth", "quota", "store::engine"]);
}
