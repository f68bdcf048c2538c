use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use http::Extensions;

/// In a request's extensions: what the quota charged for it, for whoever reports it.
///
/// Clones share the value. Whichever of the quota layer and the usage recorder comes first puts it
/// there, so that they may be stacked in any order.
#[derive(Clone, Debug, Default)]
pub struct Units(Arc<AtomicU8>);

const CHARGED: u8 = 1;
const REFUNDED: u8 = 2;

impl Units {
    /// The request's units.
    #[cfg(any(feature = "quota", feature = "usage"))]
    pub(crate) fn of(extensions: &mut Extensions) -> Self {
        extensions.get_or_insert_default::<Self>().clone()
    }

    /// Notes that a unit was charged.
    pub fn charge(&self) {
        self.0.store(CHARGED, Ordering::Relaxed);
    }

    /// Notes that the unit was given back.
    pub fn refund(&self) {
        self.0.store(REFUNDED, Ordering::Relaxed);
    }

    /// Notes that nothing was charged after all.
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Units charged, after refunds: 0 or 1.
    pub fn charged(&self) -> u32 {
        (self.0.load(Ordering::Relaxed) == CHARGED).into()
    }

    /// Whether a unit was given back.
    pub fn refunded(&self) -> bool {
        self.0.load(Ordering::Relaxed) == REFUNDED
    }
}
