//! The tests that docs/guarantees.md names exist. Their names are `binary::module::function`, where `binary` is a
//! folder below `tests`, or `lib`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::document::{Document, ROOT};

/// The tests of the repository as `binary::module::function`. Modules within a file are left out.
fn tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    collect(&Path::new(ROOT).join("src"), "lib", &mut tests);
    for binary in fs::read_dir(Path::new(ROOT).join("tests")).unwrap() {
        let folder = binary.unwrap().path();
        if is_crate(&folder) {
            collect(&folder, folder.file_name().unwrap().to_str().unwrap(), &mut tests);
        }
    }
    tests
}

/// Whether the folder is a test binary, or the crate of an application.
fn is_crate(folder: &Path) -> bool {
    ["main.rs", "lib.rs"].iter().any(|root| folder.join(root).exists())
}

fn collect(folder: &Path, module: &str, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.is_dir() {
            collect(&path, &format!("{module}::{name}"), tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let of_folder = ["main", "mod", "lib"].contains(&name);
            let module = if of_folder { module.to_owned() } else { format!("{module}::{name}") };
            let source = fs::read_to_string(&path).unwrap();
            tests.extend(functions(&source).map(|function| format!("{module}::{function}")));
        }
    }
}

/// The functions with a test attribute, and those that a macro is given and that it makes tests of.
fn functions(source: &str) -> impl Iterator<Item = &str> {
    let lines = source.lines().map(str::trim);
    lines
        .scan((false, false), |(is_test, in_macro), line| {
            let function = line.split_once("fn ").and_then(|(_, rest)| rest.split('(').next());
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                *is_test = true;
            } else if line.ends_with("! {") {
                *in_macro = true;
            } else if line == "}" {
                *in_macro = false;
            } else if let Some(function) = function {
                return Some(std::mem::take(is_test).then_some(function));
            }
            Some(line.strip_suffix(',').filter(|name| *in_macro && is_name(name)))
        })
        .flatten()
}

fn is_name(text: &str) -> bool {
    text.contains('_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Whether a test of this name is in the module, or in one within it.
fn exists(name: &str, tests: &BTreeSet<String>) -> bool {
    let (module, function) = name.rsplit_once("::").unwrap();
    let within = format!("{module}::");
    let function = format!("::{function}");
    tests.iter().any(|test| test.starts_with(&within) && test.ends_with(&function))
}

/// The names of tests in a document, with the numbers of their lines.
fn named(document: &Document) -> impl Iterator<Item = &(usize, String)> {
    let is_binary = |name: &str| {
        let folder: PathBuf = [ROOT, "tests", name].iter().collect();
        name == "lib" || is_crate(&folder)
    };
    document.names.iter().filter(move |(_, name)| {
        let mut parts = name.split("::");
        parts.next().is_some_and(is_binary) && parts.next().is_some() && !name.contains(' ')
    })
}

#[test]
fn each_guarantee_names_tests_that_exist() {
    let tests = tests();
    let document = Document::read("docs/guarantees.md");
    let mut with_test = BTreeSet::new();
    for (line, name) in named(&document) {
        assert!(exists(name, &tests), "{}:{line}: there is no test {name}", document.path);
        with_test.insert(*line);
    }
    let text = fs::read_to_string(Path::new(ROOT).join(&document.path)).unwrap();
    let rows = text.lines().enumerate().filter(|(_, row)| row.starts_with("| "));
    let promises = rows.filter(|(_, row)| !row.starts_with("| event |"));
    for (at, row) in promises {
        assert!(with_test.contains(&(at + 1)), "no test is named: {row}");
    }
}

#[test]
fn a_function_that_is_no_test_is_not_found() {
    let source = "#[test]\n#[ignore]\nfn a_b() {\n}\nfn c_d() {\n}\npromises! {\n    e_f,\n}\n";
    assert_eq!(functions(source).collect::<Vec<_>>(), ["a_b", "e_f"]);
    let tests = BTreeSet::from(["docs::guarantees::a_b".to_owned()]);
    for (name, is_found) in
        [("docs::guarantees::a_b", true), ("docs::a_b", true), ("docs::guarantees::b", false)]
    {
        assert_eq!(exists(name, &tests), is_found, "{name}");
    }
}
