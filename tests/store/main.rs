//! The stores and what is kept in them: the promises of the traits for every back end, the database that other
//! programs read and edit, copies of it, and keys that come from other programs.

#[path = "../common/mod.rs"]
mod common;

mod audit_trail;
mod backup;
#[cfg(unix)]
mod checkpoint_locks;
mod conformance;
mod import_original;
mod import_others;
mod journal_formats;
mod late_store;
#[cfg(unix)]
mod leases;
#[cfg(unix)]
mod nodes;
mod one_process;
#[cfg(unix)]
mod postgres;
#[cfg(unix)]
mod proxy;
mod readers;
mod retention;
mod table_edits;
