//! Blocks that are no commands: parsed, found in a file, or run by another test.

use std::{
    fs,
    path::{Path, PathBuf},
};

use saphyr::LoadableYamlNode;

use super::document::{Block, Directive, Document, ROOT};

/// What is wrong with the blocks of a document, short of running them.
pub(crate) fn faults(document: &Document) -> Vec<String> {
    let mut faults = document.faults.clone();
    for block in &document.blocks {
        let fault = directed(document, block).or_else(|| undirected(block));
        faults.extend(
            fault.map(|fault| format!("{}:{}: {fault}", document.path, block.line.max(2) - 1)),
        );
    }
    faults
}

fn is_directed(block: &Block) -> bool {
    block.directives.iter().any(|directive| {
        matches!(directive, Directive::Prints | Directive::SameAs(_) | Directive::RunBy(_))
    })
}

/// Directives that name a file name one that does what they say.
fn directed(document: &Document, block: &Block) -> Option<String> {
    block.directives.iter().find_map(|directive| match directive {
        Directive::SameAs(path) => match fs::read_to_string(Path::new(ROOT).join(path)) {
            Err(_) => Some(format!("there is no file {path}")),
            Ok(file) if contains(&file, &block.text) => None,
            Ok(_) => Some(format!("not found word for word in {path}")),
        },
        Directive::RunBy(path) => run_by(document, block, path),
        Directive::Background | Directive::Stopped | Directive::Clone | Directive::Fresh
            if !block.is_run() =>
        {
            Some(format!("{directive:?} is for blocks of sh and console"))
        }
        Directive::Prints if !runs_before(document, block) => {
            Some("`prints` needs a block of sh before it that is run".to_owned())
        }
        _ => None,
    })
}

fn runs_before(document: &Document, block: &Block) -> bool {
    let at = document.blocks.iter().position(|other| other.line == block.line).unwrap();
    let before = document.blocks[..at].iter().rev().find(|other| !other.is(&Directive::Prints));
    before.is_some_and(|before| before.language == "sh" && before.is_run())
}

/// A test does so if it reads the document, a script if the commands are in it.
fn run_by(document: &Document, block: &Block, path: &str) -> Option<String> {
    let full = Path::new(ROOT).join(path);
    if !path.ends_with(".rs") {
        let Ok(script) = fs::read_to_string(&full) else {
            return Some(format!("there is no script {path}"));
        };
        let command = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
        let mut commands = block.text.lines().filter(command);
        let missing =
            commands.find(|line| !script.contains(line.split(" #").next().unwrap().trim()));
        return missing.map(|line| format!("{path} has no command `{line}`"));
    }
    let folder: PathBuf = full.with_extension("").join("main.rs");
    let Some(test) = [full, folder].into_iter().find(|file| file.exists()) else {
        return Some(format!("there is no test {path}"));
    };
    let sources = fs::read_to_string(&test).unwrap() + &beside(&test);
    let name = document.path.rsplit('/').next().unwrap();
    let name = if name.starts_with("README") { document.path.as_str() } else { name };
    (!sources.contains(name)).then(|| format!("{path} never reads {name}"))
}

/// The modules of a test that is a folder.
fn beside(test: &Path) -> String {
    if !test.ends_with("main.rs") {
        return String::new();
    }
    let files = fs::read_dir(test.parent().unwrap()).unwrap();
    files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap_or_default()).collect()
}

fn undirected(block: &Block) -> Option<String> {
    if is_directed(block) {
        return block.language.is_empty().then(|| "a block without a language".to_owned());
    }
    let text = &block.text;
    match block.language.as_str() {
        "sh" | "console" | "text" => None,
        "json" => serde_json::from_str::<serde_json::Value>(text)
            .err()
            .map(|error| format!("no JSON ({error}); if a command prints it, say `prints`")),
        "yaml" => saphyr::Yaml::load_from_str(text).err().map(|error| format!("no YAML: {error}")),
        "toml" => {
            toml::from_str::<toml::Table>(text).err().map(|error| format!("no TOML: {error}"))
        }
        "ini" => text.lines().find(|line| !is_ini(line)).map(|line| format!("no INI: `{line}`")),
        "env" => text.lines().find(|line| !is_env(line)).map(|line| format!("no .env: `{line}`")),
        "csv" => csv_fault(text),
        "rust" => {
            Some("nobody compiles it: show a piece of an example by `same as PATH`".to_owned())
        }
        "" => Some("a block without a language".to_owned()),
        other => Some(format!(
            "nobody runs or validates `{other}`: say `same as PATH`, `run by tests/FILE.rs` or `prints`"
        )),
    }
}

/// Whether the file has these lines, perhaps further to the right.
fn contains(file: &str, text: &str) -> bool {
    let file: Vec<&str> = file.lines().map(str::trim_end).collect();
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    file.windows(text.len().max(1)).any(|window| {
        let Some(indent) = window[0].strip_suffix(text.first().copied().unwrap_or_default()) else {
            return false;
        };
        indent.trim().is_empty()
            && window.iter().zip(&text).all(|(line, expected)| {
                line == expected || line.strip_prefix(indent).is_some_and(|line| line == *expected)
            })
    })
}

fn is_ini(line: &str) -> bool {
    let line = line.trim();
    line.is_empty()
        || line.starts_with(['#', ';'])
        || (line.starts_with('[') && line.ends_with(']'))
        || line.split_once('=').is_some_and(|(name, _)| !name.trim().is_empty())
}

fn is_env(line: &str) -> bool {
    let name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    line.trim().is_empty()
        || line.starts_with('#')
        || line.split_once('=').is_some_and(|(set, _)| name(set))
}

fn csv_fault(text: &str) -> Option<String> {
    let cells = |line: &str| line.split(',').count();
    let width = text.lines().next().map_or(0, cells);
    let uneven = text.lines().find(|line| cells(line) != width);
    uneven.map(|line| format!("not {width} cells: `{line}`"))
}
