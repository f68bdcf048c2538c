use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files whose name begins with that of the database, but for SQLite's shared memory: a page
/// of a mapped file that cannot be written is a signal, not an error.
pub(crate) fn files_of(database: &Path) -> Vec<PathBuf> {
    let name = database.file_name().unwrap().to_str().unwrap();
    let beside = database.parent().unwrap().read_dir().unwrap();
    let paths = beside.map(|entry| entry.unwrap().path());
    let of = |path: &PathBuf| {
        let file = path.file_name().unwrap().to_str().unwrap();
        file.starts_with(name) && !file.ends_with("-shm")
    };
    paths.filter(of).collect()
}

/// The segment of the journal that is written, or was last.
pub(crate) fn live_segment(database: &Path) -> PathBuf {
    let number = |path: &Path| path.extension()?.to_str()?.parse::<u64>().ok();
    let segments = files_of(database).into_iter();
    let segments = segments.filter(|path| path.to_str().unwrap().contains(".journal."));
    segments.max_by_key(|path| number(path)).unwrap()
}

/// Copies the `quota.db` of a directory, and all that belongs to it, to another.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in files_of(&from.join("quota.db")) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}
