//! How much of all bodies together is held back.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

/// Room for the bodies of all requests of a layer, in bytes that are left.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<AtomicUsize>);

/// What one body takes of it.
#[derive(Debug)]
pub(super) struct HeldRoom {
    room: Room,
    bytes: usize,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Room for a body of which nothing is there yet.
    pub(super) fn enter(&self) -> HeldRoom {
        HeldRoom { room: self.clone(), bytes: 0 }
    }
}

impl HeldRoom {
    /// Takes so many bytes in all, if there are as many.
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let less = |left: usize| left.checked_sub(more);
        let taken = self.room.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if taken {
            self.bytes += more;
        }
        taken
    }

    /// The bytes, which take the room until the last copy of them is dropped.
    pub(super) fn hold(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(HeldBytes { bytes, _room: self })
    }
}

impl Drop for HeldRoom {
    fn drop(&mut self) {
        self.room.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

struct HeldBytes {
    bytes: Vec<u8>,
    _room: HeldRoom,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
