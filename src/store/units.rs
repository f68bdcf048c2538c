use std::{
    io::IoSlice,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

use http::{Extensions, response::Parts};

use super::{Draft, LedgerId, UsageEvent};
use crate::{error::StoreError, key::KeyId};

/// In a request's extensions: what the quota charged for it and to whom, for whoever reports it.
///
/// Clones share the value. Whichever of the quota layer and the usage recorder comes first puts it
/// there, so that they may be stacked in any order. The recorder lays the request's event down in
/// it, so that a quota inside can write an answer that is over at once down in one record.
#[derive(Clone, Debug, Default)]
pub struct Units(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    key_id: OnceLock<KeyId>,
    draft: Mutex<Option<Box<Draft>>>,
}

const CHARGED: u8 = 1;
const REFUNDED: u8 = 2;
/// Several quotas are at work, so none of them knows how the request ends.
const SEVERAL: u8 = 4;
/// The unit is written down as one whose event is to come.
const AWAITS_EVENT: u8 = 8;

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

    /// Notes that a unit was charged.
    #[cfg(feature = "quota")]
    pub(crate) fn charge(&self) {
        let before = self.0.state.load(Ordering::Relaxed);
        let several = if before == 0 { 0 } else { SEVERAL };
        self.0.state.store(CHARGED | several | before & AWAITS_EVENT, Ordering::Relaxed);
    }

    /// Notes that the unit was given back.
    #[cfg(feature = "quota")]
    pub(crate) fn refund(&self) {
        let several = self.0.state.load(Ordering::Relaxed) & SEVERAL;
        self.0.state.store(REFUNDED | several, Ordering::Relaxed);
    }

    /// Notes that nothing was charged after all.
    #[cfg(feature = "quota")]
    pub(crate) fn clear(&self) {
        self.0.state.fetch_and(SEVERAL, Ordering::Relaxed);
    }

    /// Notes that the unit is written down as one whose event is to come.
    #[cfg(feature = "quota")]
    pub(crate) fn await_event(&self) {
        self.0.state.fetch_or(AWAITS_EVENT, Ordering::Relaxed);
    }

    /// Whether the unit is written down as one whose event is to come.
    #[cfg(feature = "usage")]
    pub(crate) fn awaits_event(&self) -> bool {
        self.0.state.load(Ordering::Relaxed) & AWAITS_EVENT != 0
    }

    /// Units charged, after refunds: 0 or 1.
    pub fn charged(&self) -> u32 {
        (self.0.state.load(Ordering::Relaxed) & CHARGED).into()
    }

    /// Whether a unit was given back.
    pub fn refunded(&self) -> bool {
        self.0.state.load(Ordering::Relaxed) & REFUNDED != 0
    }

    fn draft(&self) -> MutexGuard<'_, Option<Box<Draft>>> {
        self.0.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays the event down, unless another lies there.
    #[cfg(feature = "usage")]
    pub(crate) fn lay_down(&self, draft: &mut Option<Box<Draft>>) {
        let mut place = self.draft();
        if place.is_none() {
            *place = draft.take();
        }
    }

    /// Takes the event up again.
    #[cfg(feature = "usage")]
    pub(crate) fn take_up(&self) -> Option<Box<Draft>> {
        mem::take(&mut *self.draft())
    }

    /// Whether an event lies there that belongs to this ledger.
    #[cfg(feature = "quota")]
    pub(crate) fn has_event_of(&self, ledger: LedgerId) -> bool {
        self.0.state.load(Ordering::Relaxed) & SEVERAL == 0
            && self.draft().as_ref().is_some_and(|draft| draft.ledger == Some(ledger))
    }

    /// Completes the event for an answer with this head and this whole body, and has it written.
    #[cfg(feature = "quota")]
    pub(crate) fn write_event(
        &self,
        head: &Parts,
        body: &[IoSlice<'_>],
        write: impl FnOnce(Option<&UsageEvent>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut place = self.draft();
        let Some(draft) = &mut *place else { return write(None) };
        (draft.complete)(draft, self, head, body);
        write(Some(&draft.event))?;
        draft.is_written = true;
        Ok(())
    }
}
