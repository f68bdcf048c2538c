use std::sync::Arc;

use dashmap::{DashMap, Entry};

use crate::key::KeyId;

/// Counts how many requests of each subject are in flight.
#[derive(Debug, Default)]
pub(crate) struct InFlight(DashMap<KeyId, u64>);

/// Counts one request as in flight until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlightGuard {
    in_flight: Arc<InFlight>,
    id: KeyId,
}

impl InFlight {
    /// Counts one more request of the subject, or returns `None` if `max` of them are in flight.
    pub(crate) fn enter(self: &Arc<Self>, id: KeyId, max: u64) -> Option<InFlightGuard> {
        match self.0.entry(id.clone()) {
            Entry::Occupied(mut count) if *count.get() < max => *count.get_mut() += 1,
            Entry::Vacant(subject) if max > 0 => drop(subject.insert(1)),
            Entry::Occupied(_) | Entry::Vacant(_) => return None,
        }
        Some(InFlightGuard { in_flight: self.clone(), id })
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.in_flight.0.entry(self.id.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
