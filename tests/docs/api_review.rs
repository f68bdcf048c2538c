//! docs/decisions/api-review.md has each public item of docs/public-api.txt, and no other.

use std::{collections::BTreeSet, fs, path::Path};

use super::document::ROOT;

const CRATE: &str = "tower_quota::";

/// What a listing of the API has.
struct Api {
    /// Modules, and the items in them.
    items: BTreeSet<String>,
    /// Functions and constants of types and traits.
    associated: BTreeSet<String>,
}

fn api(listing: &str) -> Api {
    let named: Vec<(&str, String)> = listing.lines().filter_map(item).collect();
    let modules: BTreeSet<&String> =
        named.iter().filter(|(kind, _)| *kind == "mod").map(|(_, path)| path).collect();
    let (mut items, mut associated) = (BTreeSet::new(), BTreeSet::new());
    for (kind, path) in &named {
        let is_in_module = match path.rsplit_once("::") {
            Some((parent, _)) => modules.iter().any(|module| *module == parent),
            None => *kind == "mod",
        };
        let set = if is_in_module || *kind == "mod" { &mut items } else { &mut associated };
        set.insert(path.clone());
    }
    Api { items, associated }
}

/// Kind and path of the item on this line, without its crate and its parameters.
fn item(line: &str) -> Option<(&str, String)> {
    let line = line.strip_prefix("#[non_exhaustive] ").unwrap_or(line).strip_prefix("pub ")?;
    let line = line.strip_prefix("async ").unwrap_or(line);
    let line = line.strip_prefix("const fn ").map_or(line, |_| &line["const ".len()..]);
    let (kind, path) = line.split_once(' ')?;
    let kinds =
        ["mod", "struct", "enum", "union", "trait", "type", "const", "static", "fn", "macro"];
    let path = path.strip_prefix(CRATE).filter(|_| kinds.contains(&kind))?;
    let mut plain = String::new();
    let mut depth = 0;
    for letter in path.chars() {
        match letter {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ if depth > 0 => {}
            ':' => plain.push(letter),
            _ if letter.is_alphanumeric() || letter == '_' => plain.push(letter),
            _ => break,
        }
    }
    Some((kind, plain.trim_end_matches(':').to_owned()))
}

/// The modules that the review has as headings, and the names in the first cells below them.
fn reviewed(review: &str) -> Vec<String> {
    let mut module = String::new();
    let mut names = Vec::new();
    for line in review.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            module = heading.trim_matches('`').to_owned();
            names.push(module.clone());
        } else if let Some(cell) = line.strip_prefix("| ").and_then(|row| row.split(" | ").next()) {
            let quoted = cell.split('`').skip(1).step_by(2);
            names.extend(quoted.map(|name| format!("{module}::{name}")));
        }
    }
    names
}

/// Items without a reason, and reasons without an item.
fn differences(listing: &str, review: &str) -> Vec<String> {
    let Api { items, associated } = api(listing);
    let reviewed = reviewed(review);
    let mut faults = Vec::new();
    let mut known = BTreeSet::new();
    for name in reviewed {
        if !items.contains(&name) && !associated.contains(&name) {
            faults.push(format!("{name} is gone"));
        }
        if !known.insert(name.clone()) {
            faults.push(format!("{name} has two rows"));
        }
    }
    let missing = items.difference(&known);
    faults.extend(missing.map(|name| format!("{name} has no row")));
    faults
}

#[test]
fn each_public_item_has_a_reason() {
    let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    let faults = differences(&read("docs/public-api.txt"), &read("docs/decisions/api-review.md"));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn items_without_a_row_and_rows_without_an_item_are_found() {
    let listing = "pub mod tower_quota\npub mod tower_quota::a\n#[non_exhaustive] pub struct tower_quota::a::B<T>(_)\n\
                   impl<T> tower_quota::a::B<T>\npub fn tower_quota::a::B<T>::new(T) -> Self\n\
                   pub async fn tower_quota::a::c(u8)\npub const tower_quota::a::D: u8\n\
                   pub fn alloc::sync::Arc<T>::new()\npub tower_quota::a::E::F";
    let whole = "## `a`\n\n| item | who |\n|---|---|\n| `B` `B::new` | x |\n| `c` `D` | `gone` |";
    assert_eq!(differences(listing, whole), [""; 0]);
    assert_eq!(differences(listing, &whole.replace(" `D`", "")), ["a::D has no row"]);
    assert_eq!(differences(listing, &whole.replace("B::new", "B::old")), ["a::B::old is gone"]);
    assert_eq!(differences(listing, &format!("{whole}\n| `c` | y |")), ["a::c has two rows"]);
    assert_eq!(differences(listing, &whole.replace("## `a`", "## `b`")).len(), 9);
}
