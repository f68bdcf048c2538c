//! When the disk fails, nothing is served uncounted, the rejection is quick and says why, and service
//! returns by itself.
//!
//! The gateway runs as a process, requests never cease, and the failures are real ones: system calls
//! that `strace` makes fail, file systems that are full or reject writes, damaged files, foreign
//! locks. `load.rs` holds what must be true in every one of them.

#[path = "../common/mod.rs"]
mod common;

mod corrupted_file;
mod damaged_journal;
mod files;
mod foreign_lock;
mod full_or_read_only;
mod injected_faults;
mod load;
mod lost_writes;
mod missing_files;
mod new_segment;
mod scene;
mod tracer;
