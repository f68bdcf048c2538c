use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU8, Ordering},
};

use http::Extensions;

use super::Admission;
use crate::key::KeyId;

/// In a request's extensions: what the quota charged for it and to whom, for whoever reports it.
///
/// Clones share the value. Whichever of the quota layer and the usage recorder comes first puts it
/// there, so that they may be stacked in any order.
#[derive(Clone, Debug, Default)]
pub struct Units(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    key_id: OnceLock<KeyId>,
    admission: OnceLock<Admission>,
}

const CHARGED: u8 = 1;
const REFUNDED: u8 = 2;

impl Units {
    /// The request's units.
    #[cfg(any(feature = "quota", feature = "usage"))]
    pub(crate) fn of(extensions: &mut Extensions) -> Self {
        extensions.get_or_insert_default::<Self>().clone()
    }

    /// Notes whose request it is.
    #[cfg(feature = "auth")]
    pub(crate) fn name_key(&self, id: &KeyId) {
        let _ = self.0.key_id.set(id.clone());
    }

    /// Whose request it is, if that has been found out.
    pub fn key_id(&self) -> Option<&KeyId> {
        self.0.key_id.get()
    }

    /// Notes that a unit was charged. Of several quotas the outermost one's admission stays.
    #[cfg(feature = "quota")]
    pub(crate) fn charge(&self, admission: Option<Admission>) {
        self.0.state.store(CHARGED, Ordering::Relaxed);
        if let Some(admission) = admission {
            let _ = self.0.admission.set(admission);
        }
    }

    /// The request as the quota's store has it on record, if that tells.
    #[cfg(feature = "usage")]
    pub(crate) fn admission(&self) -> Option<Admission> {
        self.0.admission.get().cloned()
    }

    /// Notes that the unit was given back.
    #[cfg(feature = "quota")]
    pub(crate) fn refund(&self) {
        self.0.state.store(REFUNDED, Ordering::Relaxed);
    }

    /// Notes that nothing was charged after all.
    #[cfg(feature = "quota")]
    pub(crate) fn clear(&self) {
        self.0.state.store(0, Ordering::Relaxed);
    }

    /// Units charged, after refunds: 0 or 1.
    pub fn charged(&self) -> u32 {
        (self.0.state.load(Ordering::Relaxed) & CHARGED).into()
    }

    /// Whether a unit was given back.
    pub fn refunded(&self) -> bool {
        self.0.state.load(Ordering::Relaxed) & REFUNDED != 0
    }
}
