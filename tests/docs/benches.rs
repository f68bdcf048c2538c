//! The commands of docs/performance.md run for minutes: their benches and options exist, and what they draw is kept.

#[path = "../../benches/common/chart.rs"]
mod chart;
#[path = "../../benches/leases/picture.rs"]
mod picture;
#[path = "../../benches/stack/pictures.rs"]
mod pictures;
#[path = "../../benches/common/table.rs"]
mod table;

use std::{fs, path::Path};

use super::document::{Document, ROOT};

#[test]
fn the_benches_and_options_of_the_performance_page_exist() {
    let document = Document::read("docs/performance.md");
    let commands = document.blocks.iter().filter(|block| block.language == "sh");
    let commands: Vec<&str> = commands.flat_map(|block| block.text.lines()).collect();
    assert!(!commands.is_empty());
    for command in commands {
        let command = command.split(" #").next().unwrap().trim();
        let (cargo, options) = command.split_once(" -- ").unwrap_or((command, ""));
        let bench = cargo.split("--bench ").nth(1).unwrap().split(' ').next().unwrap();
        let sources = sources(bench);
        for option in options.split(' ').filter_map(|word| word.strip_prefix("--")) {
            assert!(sources.contains(&option.replace('-', "_")), "no --{option} in `{command}`");
        }
    }
}

#[test]
fn the_picture_of_leases_shows_its_table() {
    let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    let picture = picture::draw(&read("docs/scaling.md")).unwrap();
    let kept = read("docs/pictures/leases.svg");
    assert!(picture == kept, "run cargo bench --bench leases -- picture");
}

#[test]
fn the_pictures_of_the_performance_page_show_its_tables() {
    let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    for (name, picture) in pictures::draw(&read("docs/performance.md")) {
        let picture = picture.unwrap_or_else(|| panic!("no table of {name}"));
        let kept = read(&format!("docs/pictures/{name}.svg"));
        assert!(picture == kept, "{name}: run cargo bench --bench stack -- pictures");
    }
}

fn sources(bench: &str) -> String {
    let folder = Path::new(ROOT).join("benches").join(bench);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{bench}: {error}"));
    let files = files.map(|file| file.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| fs::read_to_string(path).unwrap()).collect()
}
