//! Synchronisation primitives of the counters and the journal: those of the standard library, or loom's
//! for checking interleavings (`--cfg model`).

#[cfg(all(feature = "engine", not(all(test, model))))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(all(test, model)))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(all(test, model))]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Concurrent map that every request reads.
pub(crate) type SharedMap<K, V> = dashmap::DashMap<K, V, foldhash::fast::RandomState>;

/// Locks a mutex and ignores poisoning: its data is consistent after each statement, also after a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
