use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// In a request's extensions: whether its client has left although its answer is read on. Whoever
/// reads it on puts it there (`DrainLayer`), the usage recorder reads it.
#[derive(Clone, Debug, Default)]
pub struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    /// Whether the client has left.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The client has left.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
