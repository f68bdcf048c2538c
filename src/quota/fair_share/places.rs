use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::{
    body::{BodyEnd, BodyObserver},
    key::KeyId,
};

/// A number of places, each of which one request at a time may have. While all are taken, requests wait.
///
/// No place is free while a request waits: under the same lock, a place that is given back goes to the next
/// waiting request. Wakers are called and dropped without the lock, as they may run code that needs it.
pub(super) struct Places(Mutex<State>);

/// A place, which is given back when this is dropped.
pub(super) struct PlaceGuard(Arc<Places>);

/// A request that waits for a place, until this is dropped.
pub(super) struct Waiter {
    places: Arc<Places>,
    subject: QueueSubject,
    ticket: u64,
}

/// Those whose requests share a queue: a key, or all who have none.
pub(super) type QueueSubject = Option<KeyId>;

struct State {
    free: u32,
    /// The queues of the waiting subjects by their turns. The first one gets the next place.
    ring: BTreeMap<u64, Queue>,
    /// The turn of each waiting subject.
    turns: HashMap<QueueSubject, u64>,
    /// Tickets of waiting requests that have got a place and do not know it yet.
    granted: HashSet<u64>,
    /// The latest ticket or turn. Both rise, and none is used twice.
    latest: u64,
}

/// The waiting requests of one subject by their tickets, with their wakers. There is at least one.
struct Queue {
    subject: QueueSubject,
    waiting: BTreeMap<u64, Option<Waker>>,
}

impl Places {
    pub(super) fn new(max: NonZeroU32) -> Self {
        Self(Mutex::new(State {
            free: max.get(),
            ring: BTreeMap::new(),
            turns: HashMap::new(),
            granted: HashSet::new(),
            latest: 0,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, if one is free.
    pub(super) fn take(self: &Arc<Self>) -> Option<PlaceGuard> {
        let free = &mut self.lock().free;
        *free = free.checked_sub(1)?;
        Some(PlaceGuard(self.clone()))
    }

    /// Starts to wait for a place.
    pub(super) fn wait(self: &Arc<Self>, subject: QueueSubject) -> Waiter {
        let mut state = self.lock();
        let ticket = state.enqueue(&subject);
        // A place may have become free since `take`.
        if let Some(free) = state.free.checked_sub(1) {
            state.free = free;
            state.give_back();
        }
        drop(state);
        Waiter { places: self.clone(), subject, ticket }
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.latest += 1;
        self.latest
    }

    /// Adds a request of a subject and returns its ticket. A subject that is waiting already keeps its turn.
    fn enqueue(&mut self, subject: &QueueSubject) -> u64 {
        let ticket = self.next();
        let turn = *self.turns.entry(subject.clone()).or_insert(ticket);
        let new = || Queue { subject: subject.clone(), waiting: BTreeMap::new() };
        self.ring.entry(turn).or_insert_with(new).waiting.insert(ticket, None);
        ticket
    }

    /// Gives a place to the next waiting request and returns its waker, or makes the place free. The next turn
    /// of the request's subject is after those of all others.
    fn give_back(&mut self) -> Option<Waker> {
        let Some((_, mut queue)) = self.ring.pop_first() else {
            self.free += 1;
            return None;
        };
        let (ticket, waker) = queue.waiting.pop_first()?;
        self.granted.insert(ticket);
        if queue.waiting.is_empty() {
            self.turns.remove(&queue.subject);
        } else {
            let turn = self.next();
            self.turns.insert(queue.subject.clone(), turn);
            self.ring.insert(turn, queue);
        }
        waker
    }

    /// Returns the waker of a waiting request.
    fn waker(&mut self, subject: &QueueSubject, ticket: u64) -> Option<&mut Option<Waker>> {
        self.ring.get_mut(self.turns.get(subject)?)?.waiting.get_mut(&ticket)
    }

    /// Removes a waiting request and returns its waker.
    fn remove(&mut self, subject: &QueueSubject, ticket: u64) -> Option<Waker> {
        let turn = *self.turns.get(subject)?;
        let queue = self.ring.get_mut(&turn)?;
        let waker = queue.waiting.remove(&ticket);
        if queue.waiting.is_empty() {
            self.turns.remove(subject);
            self.ring.remove(&turn);
        }
        waker.flatten()
    }
}

impl Waiter {
    /// Waits for the place.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<PlaceGuard> {
        // Declared before the lock, so that the replaced waker is dropped after it.
        let mut waker = Some(cx.waker().clone());
        let mut state = self.places.lock();
        if state.granted.remove(&self.ticket) {
            return Poll::Ready(PlaceGuard(self.places.clone()));
        }
        if let Some(known) = state.waker(&self.subject, self.ticket) {
            mem::swap(known, &mut waker);
        }
        Poll::Pending
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        let is_granted = state.granted.remove(&self.ticket);
        let waker = state.remove(&self.subject, self.ticket);
        drop(state);
        drop(waker);
        if is_granted {
            drop(PlaceGuard(self.places.clone()));
        }
    }
}

impl Drop for PlaceGuard {
    fn drop(&mut self) {
        let waker = self.0.lock().give_back();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The end of a response body gives its place back.
impl BodyObserver for PlaceGuard {
    fn end(self, _: BodyEnd) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(places: &Arc<Places>, subject: &str) -> Waiter {
        assert!(places.take().is_none());
        let waiter = places.wait(Some(KeyId::from(subject)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiter.poll(&mut cx).is_pending());
        waiter
    }

    fn has_place(waiter: &Waiter) -> bool {
        waiter.places.lock().granted.contains(&waiter.ticket)
    }

    #[test]
    fn requests_that_no_longer_wait_leave_nothing_behind() {
        let places = Arc::new(Places::new(NonZeroU32::MIN));
        let place = places.take();
        let [first, second] = ["alice", "alice"].map(|subject| waiter(&places, subject));
        let [third, fourth] = ["bob", "carol"].map(|subject| waiter(&places, subject));
        drop((second, third));
        drop(place);
        assert!(has_place(&first));
        // It has not seen its place.
        drop(first);
        assert!(has_place(&fourth));
        drop(fourth);
        let state = places.lock();
        assert!(state.ring.is_empty() && state.turns.is_empty() && state.granted.is_empty());
        assert_eq!(state.free, 1);
    }

    #[test]
    fn a_place_that_becomes_free_before_a_request_waits_is_not_overlooked() {
        let places = Arc::new(Places::new(NonZeroU32::MIN));
        let late = places.wait(None);
        assert!(late.poll(&mut Context::from_waker(Waker::noop())).is_ready());
        assert!(places.take().is_some(), "it was given back again");
    }
}
