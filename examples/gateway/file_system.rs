//! Kinds of file systems, by their magic numbers (Linux only).

use std::path::Path;

/// What a file system means for a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// A disk of this machine, or unknown.
    Local,
    /// On the network or in user space, with this name.
    Network(&'static str),
    /// In memory.
    Memory,
    /// A container's own layer.
    Overlay,
}

/// Returns the kind of the file system of a file or directory.
#[cfg(target_os = "linux")]
pub(crate) fn of(path: &Path) -> FileSystem {
    use nix::sys::statfs::{
        FUSE_SUPER_MAGIC, FsType, NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, SMB_SUPER_MAGIC,
        TMPFS_MAGIC, statfs,
    };
    const CIFS: FsType = FsType(0xff53_4d42);
    const SMB2: FsType = FsType(0xfe53_4d42);
    const CEPH: FsType = FsType(0x00c3_6400);
    const PLAN9: FsType = FsType(0x0102_1997);
    const RAMFS: FsType = FsType(0x8584_58f6);

    let Ok(found) = statfs(path) else { return FileSystem::Local };
    match found.filesystem_type() {
        NFS_SUPER_MAGIC => FileSystem::Network("NFS"),
        SMB_SUPER_MAGIC | CIFS | SMB2 => FileSystem::Network("SMB"),
        CEPH => FileSystem::Network("Ceph"),
        PLAN9 => FileSystem::Network("9p"),
        FUSE_SUPER_MAGIC => FileSystem::Network("FUSE"),
        TMPFS_MAGIC | RAMFS => FileSystem::Memory,
        OVERLAYFS_SUPER_MAGIC => FileSystem::Overlay,
        _ => FileSystem::Local,
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn of(_: &Path) -> FileSystem {
    FileSystem::Local
}
