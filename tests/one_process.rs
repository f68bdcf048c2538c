//! One process a file, however it is named.

use tower_quota::store::sqlite::{SqliteOptions, SqliteStore};

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_naming_the_file_leads_to_the_same_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quota.db");
    let link = directory.path().join("link.db");
    let store = SqliteStore::open(SqliteOptions::new(&path)).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let dotted = directory.path().join(".").join("quota.db");
    for other in [&link, &dotted, &path] {
        let error = SqliteStore::open(SqliteOptions::new(other)).unwrap_err().to_string();
        assert!(error.contains("in use by another process"), "{error}");
    }
    drop(store);
    SqliteStore::open(SqliteOptions::new(&link)).unwrap();
}
