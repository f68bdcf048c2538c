//! Files, settings and commands that documents name exist.

use std::{collections::HashMap, fs, path::Path, process::Command};

use super::{
    common::gateway_binary,
    document::{Document, ROOT, all},
};

/// Where names of settings and variables are looked for.
const SOURCES: [&str; 6] = ["src", "examples", "tests", "benches", ".ci", "docs"];

/// What a document names and nothing else does.
pub(crate) fn unknown_names(document: &Document, sources: &str) -> Vec<String> {
    let unknown = document.names.iter().filter(|(_, name)| {
        let is_path = ["src/", "examples/", "tests/", "benches/", "docs/", ".ci/"]
            .iter()
            .any(|folder| name.starts_with(folder));
        if is_path {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-/".contains(letter);
            return name.chars().all(plain) && !Path::new(ROOT).join(name).exists();
        }
        let name = name.split('=').next().unwrap();
        let is_variable = name.contains('_')
            && name.starts_with(|letter: char| letter.is_ascii_uppercase())
            && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        is_variable && !sources.contains(name)
    });
    unknown.map(|(line, name)| format!("{}:{line}: there is no {name}", document.path)).collect()
}

/// All text of the repository but documents.
fn sources() -> String {
    let mut text = String::new();
    for folder in SOURCES {
        read(&Path::new(ROOT).join(folder), &mut text);
    }
    for entry in fs::read_dir(ROOT).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.extension().is_none_or(|extension| extension != "md") {
            text += &fs::read_to_string(path).unwrap_or_default();
        }
    }
    text
}

fn read(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, text);
        } else if path.extension().is_none_or(|extension| extension != "md") {
            *text += &fs::read_to_string(path).unwrap_or_default();
        }
    }
}

/// A changelog names what is gone, too.
#[test]
fn files_and_settings_that_documents_name_exist() {
    let sources = sources();
    let documents = all().into_iter().filter(|document| document.path != "CHANGELOG.md");
    let unknown: Vec<String> =
        documents.flat_map(|document| unknown_names(&document, &sources)).collect();
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

/// Where a document has a command of the gateway that its help does not know.
pub(crate) fn unknown_commands(document: &Document, help: &mut Help) -> Vec<String> {
    let mut unknown = Vec::new();
    for (line, name) in &document.names {
        let Some(words) = name.strip_prefix("gateway ") else { continue };
        let mut of = "";
        for (at, word) in words.split_whitespace().enumerate() {
            let word = word.split('=').next().unwrap();
            let known = match word.strip_prefix("--") {
                Some(_) => help.of(of).contains(word) || help.of("").contains(word),
                None if at == 0 => help.of("").contains(&format!("\n  {word} ")),
                None => continue,
            };
            if !known {
                unknown.push(format!("{}:{line}: `{name}`: no {word}", document.path));
                break;
            }
            if at == 0 && !word.starts_with('-') {
                of = word;
            }
        }
    }
    unknown
}

/// What the gateway prints for `--help`, by subcommand.
#[derive(Default)]
pub(crate) struct Help(HashMap<String, String>);

impl Help {
    fn of(&mut self, subcommand: &str) -> &str {
        self.0.entry(subcommand.to_owned()).or_insert_with(|| {
            let mut gateway = Command::new(gateway_binary());
            gateway.args(subcommand.split_whitespace()).arg("--help").env_clear();
            String::from_utf8(gateway.output().unwrap().stdout).unwrap()
        })
    }
}

#[test]
fn commands_of_the_gateway_that_documents_name_exist() {
    let mut help = Help::default();
    let documents = all().into_iter().filter(|document| document.path != "CHANGELOG.md");
    let unknown: Vec<String> =
        documents.flat_map(|document| unknown_commands(&document, &mut help)).collect();
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

/// In English `--help` does so.
#[test]
fn each_setting_and_its_default_are_documented_in_chinese() {
    let pages = ["docs/gateway.zh.md", "docs/guides/operating.zh.md"]
        .map(|page| fs::read_to_string(Path::new(ROOT).join(page)).unwrap());
    let mut help = Help::default();
    let settings = help.of("").split("\n      --").skip(1);
    for setting in settings.filter(|setting| setting.contains("[env: ")) {
        let within = |begin: &str| Some(setting.split_once(begin)?.1.split_once(']')?.0);
        let name = format!("`{}`", within("[env: ").unwrap());
        let rows = pages.iter().flat_map(|page| page.lines()).filter(|row| row.starts_with("| "));
        let mut cells = rows.map(|row| row.split('|').collect::<Vec<_>>());
        let row = cells.find(|cells| cells[1].contains(&name));
        let row = row.unwrap_or_else(|| panic!("no row for {name}"));
        let default = within("[default: ").unwrap_or("none");
        let is_words = ["none", "any", "a random one, printed"].contains(&default);
        assert!(is_words || row[2].contains(&format!("`{default}`")), "{name}: {default}");
    }
}
