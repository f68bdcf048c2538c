//! Checks of the machine: files, file systems, limits, time zones.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access, statvfs};
use tower_quota::store::sqlite::{OpenErrorKind, SqliteOptions, inspect};

use super::{
    super::{backup::cannot_open, progress::size},
    Finding::{self, Failure, Fine, Warning},
    count,
};
use crate::{
    file_system::{self, FileSystem},
    open_files,
    settings::{SecretFile, Settings},
    store::StoreOptions,
};

/// Free disk space below which a warning is printed.
const MIN_FREE_BYTES: u64 = 256 << 20;
/// Number of connections below which a warning is printed.
const MIN_CONNECTIONS: usize = 1000;
/// Directory of the system's time zones.
const ZONES: &str = "/usr/share/zoneinfo";

/// Checks a SQLite database without writing to it.
pub(super) fn database(options: SqliteOptions, path: &Path) -> Vec<Finding> {
    let shown = path.display();
    let directory = match path.canonicalize() {
        Ok(path) => path.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned),
        Err(_) => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        },
    };
    let mut findings = Vec::new();
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            findings
                .push(Failure(format!("{shown} is a directory; DATABASE_URL must name a file")));
            return findings;
        }
        Ok(metadata) if metadata.len() == 0 => {
            findings.push(Fine(format!("{shown} is empty; the first start creates its tables")));
        }
        Ok(metadata) => {
            findings.push(existing(options, path, metadata.len()));
            findings.extend(permissions(path, metadata.permissions().mode()));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && directory.is_dir() => {
            findings.push(Fine(format!("{shown} does not exist; the first start creates it")));
        }
        Err(error) => {
            let advice = "DATABASE_URL must name a file in an existing directory";
            findings.push(Failure(format!("{shown} cannot be read: {error}; {advice}")));
            return findings;
        }
    }
    // The WAL, the journal and the lock are created next to it.
    findings.extend(directory_of_files(&directory));
    findings.extend(file_system(&directory));
    findings
}

/// Checks the directory of a PostgreSQL database's journal.
pub(super) fn journal(settings: &Settings) -> Vec<Finding> {
    let settings = &settings.database;
    let directory = settings.journal_directory();
    let shown = directory.display();
    if let Err(error) = settings.check_journal() {
        return vec![Failure(error.to_string())];
    }
    let mut findings: Vec<Finding> = directory_of_files(directory);
    match file_system::of(directory) {
        FileSystem::Memory | FileSystem::Overlay => findings.push(Warning(format!(
            "{shown} is lost with this machine or container, and the latest counts with it; set \
             JOURNAL_PATH to a disk"
        ))),
        FileSystem::Network(_) => findings.extend(file_system(directory)),
        FileSystem::Local => {}
    }
    if findings.is_empty() {
        let path = settings.journal_path.display();
        findings.push(Fine(format!("{path}.journal.* can be written")));
    }
    findings
}

/// Checks whether files can be created in a directory.
fn directory_of_files(directory: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        findings.push(Failure(format!(
            "the directory {} cannot be written: {error}; it must belong to the gateway's user",
            directory.display()
        )));
    }
    if let Ok(volume) = statvfs(directory) {
        let free = volume.f_bavail.saturating_mul(volume.f_frsize);
        if free < MIN_FREE_BYTES {
            let free = size(free);
            findings.push(Warning(format!(
                "only {free} are free in {}: with a full disk no request is admitted",
                directory.display()
            )));
        }
    }
    findings
}

fn existing(options: SqliteOptions, path: &Path, length: u64) -> Finding {
    let shown = path.display();
    match inspect(&options) {
        Ok(inspection) => {
            let keys = count(inspection.keys as usize, "key");
            let state = match (inspection.is_in_use, inspection.is_current) {
                (true, _) => "in use by a gateway",
                (false, true) => "not in use",
                (false, false) => "of an earlier version, which the next start migrates",
            };
            Fine(format!("{shown}: intact, {keys}, {}, {state}", size(length)))
        }
        Err(error) if error.kind() == OpenErrorKind::Loss => {
            Failure(cannot_open(error, &StoreOptions::Sqlite(options)).to_string())
        }
        Err(error) => {
            Failure(format!("{error}; docs/operations/backup.md describes how to restore a copy"))
        }
    }
}

fn permissions(path: &Path, mode: u32) -> Vec<Finding> {
    let shown = path.display();
    let mut findings = Vec::new();
    if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        findings.push(Warning(format!(
            "{shown} is accessible to other users of this machine (mode {mode:03o}): chmod 600 {shown}"
        )));
    }
    if let Err(error) = File::options().read(true).write(true).open(path) {
        let advice = "it must belong to the gateway's user";
        findings.push(Failure(format!("{shown} cannot be written: {error}; {advice}")));
    }
    findings
}

/// Checks for files with secrets that every user of the machine can read.
pub(super) fn secrets(settings: &Settings) -> Vec<Finding> {
    let admin_tokens = settings.admin_token_file.iter().map(SecretFile::path);
    let api_key = settings.upstream.api_key_file.iter().map(SecretFile::path);
    let password = settings.database.password_file.iter().map(SecretFile::path);
    let files = [Path::new(".env")].into_iter().chain(admin_tokens).chain(api_key).chain(password);
    let is_open =
        |path: &&Path| path.metadata().is_ok_and(|file| file.permissions().mode() & 0o004 != 0);
    let findings = files.filter(is_open).map(|path| {
        let shown = path.display();
        Warning(format!("{shown} is readable for other users of this machine: chmod 600 {shown}"))
    });
    findings.collect()
}

/// Checks for file systems on which a database is not safe.
fn file_system(directory: &Path) -> Option<Finding> {
    let shown = directory.display();
    Some(Warning(match file_system::of(directory) {
        FileSystem::Local => return None,
        FileSystem::Network(name) => format!(
            "{shown} is on a network or user-space file system ({name}), whose locks and syncs may \
             not be reliable: keep the database on a local disk"
        ),
        FileSystem::Memory => format!(
            "{shown} is in memory (tmpfs): keys and counts are lost when the machine or container \
             restarts; keep the database on a disk"
        ),
        FileSystem::Overlay => format!(
            "{shown} is in a container's own layer (overlay): keys and counts are lost with the \
             container; mount a volume there"
        ),
    }))
}

/// Checks how many connections the limit of open files allows.
pub(super) fn open_files(settings: &Settings) -> [Finding; 1] {
    let (possible, configured) = (open_files::max_connections(), settings.max_connections);
    [if configured > possible {
        Warning(format!(
            "MAX_CONNECTIONS is {configured}, but the limit of open files allows {possible} \
             connections: raise it (ulimit -n, LimitNOFILE=)"
        ))
    } else if possible < MIN_CONNECTIONS {
        Warning(format!(
            "the limit of open files allows {possible} connections: raise it (ulimit -n, \
             LimitNOFILE=)"
        ))
    } else {
        Fine(format!("up to {configured} connections"))
    }]
}

/// Checks whether the system, which is updated, has the rules of the time zone.
pub(super) fn time_zones(zone: &str) -> Option<Finding> {
    let is_known = zone == "UTC" || fs::exists(Path::new(ZONES).join(zone)).unwrap_or(false);
    (!is_known).then(|| {
        Warning(format!(
            "{zone} is not in {ZONES}, so its rules are as old as this program: install tzdata"
        ))
    })
}
