//! The pictures of the guides are those that `docs/pictures/make` makes of the pages as they are.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/pictures");
const MAX_BYTES: u64 = 150_000;

/// The pictures in a folder by their names.
fn pictures(folder: &Path) -> BTreeMap<String, PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let pictures = files.filter(|path| path.extension().is_some_and(|kind| kind == "png"));
    pictures.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

/// Width and height, from the head of a PNG file.
fn size(path: &Path) -> (u32, u32) {
    let bytes = fs::read(path).unwrap();
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

/// All documents below `docs`, and the two beside it.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("docs")];
    let mut documents = vec![root.join("README.md"), root.join("README.zh.md")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                documents.push(path);
            }
        }
    }
    let read = |path: PathBuf| fs::read_to_string(&path).ok().map(|text| (path, text));
    documents.into_iter().filter_map(read).collect()
}

#[test]
fn each_picture_is_small_and_shown_in_a_document_of_its_language() {
    let documents = documents();
    for (name, path) in pictures(Path::new(DIRECTORY)) {
        let bytes = fs::metadata(path).unwrap().len();
        assert!(bytes < MAX_BYTES, "{name} has {bytes} bytes");
        let is_shown =
            documents.iter().any(|(_, text)| text.contains(&format!("pictures/{name})")));
        assert!(is_shown, "no document shows {name}");
    }
}

#[test]
#[ignore = "needs Chromium, Node with playwright-core, faketime, pngquant and a Chinese font"]
fn nightly_the_script_makes_each_picture_again_in_the_same_size() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(format!("{DIRECTORY}/make"))
        .env("GATEWAY", crate::common::gateway_binary())
        .env("PICTURES", folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (kept, made) = (pictures(Path::new(DIRECTORY)), pictures(folder.path()));
    let sizes = |pictures: &BTreeMap<String, PathBuf>| {
        pictures.iter().map(|(name, path)| (name.clone(), size(path))).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(sizes(&kept), sizes(&made), "run docs/pictures/make");
}
