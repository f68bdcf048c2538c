//! What the counters and the journal synchronise with: the standard library's, or loom's when their
//! interleavings are checked (`--cfg model`).

#[cfg(all(feature = "sqlite", not(all(test, model))))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(all(test, model)))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(all(test, model))]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// A map that every request reads.
pub(crate) type SharedMap<K, V> = dashmap::DashMap<K, V, foldhash::fast::RandomState>;

/// Locks plain data that is whole between any two statements, so a panic leaves it whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
