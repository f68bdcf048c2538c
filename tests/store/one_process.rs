//! A file belongs to one process, however it is named.

use std::{
    fs::{self, Permissions},
    net::TcpStream,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use tower_quota::store::sqlite::{SqliteOptions, SqliteStore};

use crate::common::{Gateway, GatewayCommand};

#[test]
fn a_second_gateway_on_the_same_file_does_not_start_however_it_names_it() {
    let mut first = Gateway::demo();
    let file = first.dir().join("quota.db");
    let second = GatewayCommand::new().arg("--demo");
    let link = second.dir().join("link.db");
    symlink(&file, &link).unwrap();
    let beside = Path::new("..").join(first.dir().file_name().unwrap()).join("quota.db");
    for name in [
        file.display().to_string(),
        format!("sqlite:{}", file.display()),
        link.display().to_string(),
        "link.db".to_owned(),
        beside.display().to_string(),
    ] {
        for variable in ["DATABASE_URL", "SQLITE_PATH"] {
            let rejected = second.clone().env(variable, &name).output();
            assert!(rejected.status.code().is_some_and(|code| code != 0), "{variable}={name}");
            let said = String::from_utf8(rejected.stderr).unwrap();
            assert_eq!(said.lines().count(), 1, "{said}");
            for part in ["DATABASE_URL", "in use by another process", "stop that one"] {
                assert!(said.contains(part), "{variable}={name}: no {part} in: {said}");
            }
        }
    }
    // The first is none the worse for it, and its end sets the file free.
    assert!(TcpStream::connect(first.address()).is_ok());
    first.kill9();
    second.env("DATABASE_URL", "link.db").start();
}

#[test]
fn the_lock_file_is_readable_by_its_owner_only() {
    let mode = |gateway: &Gateway| {
        let lock = fs::metadata(gateway.dir().join("quota.db.lock")).unwrap();
        lock.permissions().mode() & 0o777
    };
    let command = GatewayCommand::new().arg("--demo");
    let mut first = command.start();
    assert_eq!(mode(&first), 0o600);
    first.kill9();
    fs::set_permissions(command.dir().join("quota.db.lock"), Permissions::from_mode(0o644))
        .unwrap();
    assert_eq!(mode(&command.start()), 0o600);
}

#[test]
fn a_store_that_was_dropped_sets_its_file_free_while_other_processes_are_started() {
    let directory = tempfile::tempdir().unwrap();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Each has a copy of all descriptors until it executes its program.
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
        }
        let opened: Result<Vec<()>, _> = (0..60)
            .map(|_| SqliteStore::open(SqliteOptions::new(directory.path().join("quota.db"))))
            .map(|opened| opened.map(drop))
            .collect();
        is_done.store(true, Ordering::Relaxed);
        opened.unwrap();
    });
}
