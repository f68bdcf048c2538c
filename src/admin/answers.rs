//! Answers that issued keys, kept in memory for a while: a request that comes again is answered the
//! same. They hold keys in clear, so they are written nowhere.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::refusal::Refusal;
use crate::store::IdempotencyKey;

const KEPT_FOR: Duration = Duration::from_secs(60 * 60);
/// Of all answers together, in bytes.
const MOST: usize = 4 * 1024 * 1024;

/// The latest answers, the oldest first.
#[derive(Default)]
pub(super) struct Answers(Mutex<VecDeque<Kept>>);

struct Kept {
    once: IdempotencyKey,
    begun: SystemTime,
    /// `None` while the request is at work.
    answer: Option<Bytes>,
}

/// A request's place, which is given up unless it is answered.
pub(super) struct Place {
    answers: Arc<Answers>,
    once: IdempotencyKey,
}

impl Answers {
    /// The answer to the request if it was given before; else the request's place.
    pub(super) fn begin(
        self: &Arc<Self>,
        once: IdempotencyKey,
        now: SystemTime,
    ) -> Result<Result<Bytes, Place>, Refusal> {
        let mut kept = self.lock();
        let is_old = |kept: &Kept| now.duration_since(kept.begun).is_ok_and(|age| age > KEPT_FOR);
        kept.retain(|kept| kept.answer.is_none() || !is_old(kept));
        match kept.iter().find(|kept| kept.once.name() == once.name()) {
            None => {
                kept.push_back(Kept { once, begun: now, answer: None });
                Ok(Err(Place { answers: self.clone(), once }))
            }
            Some(known) if known.once != once => Err(Refusal::other_request()),
            Some(Kept { answer: Some(answer), .. }) => Ok(Ok(answer.clone())),
            Some(_) => Err(Refusal::request_in_progress()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Keeps the answer, and forgets the oldest ones that there is no room for beside it.
    pub(super) fn keep(self, answer: Bytes) {
        let mut kept = self.answers.lock();
        if let Some(own) = kept.iter_mut().find(|kept| kept.once == self.once) {
            own.answer = Some(answer);
        }
        let length = |kept: &Kept| kept.answer.as_ref().map_or(0, Bytes::len);
        let mut over = kept.iter().map(length).sum::<usize>().saturating_sub(MOST);
        kept.retain(|kept| {
            let stays = over == 0 || kept.answer.is_none();
            over = if stays { over } else { over.saturating_sub(length(kept)) };
            stays
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.answers.lock().retain(|kept| kept.once != self.once || kept.answer.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(name: &str, request: &str) -> IdempotencyKey {
        IdempotencyKey::new("token", name, request.as_bytes())
    }

    #[test]
    fn the_oldest_answers_make_room_and_old_ones_are_forgotten() {
        let (answers, now) = (Arc::new(Answers::default()), SystemTime::now());
        let known = |name: &str, now| matches!(answers.begin(once(name, ""), now), Ok(Ok(_)));
        for name in ["a", "b", "c"] {
            let place = answers.begin(once(name, ""), now).unwrap().err().unwrap();
            place.keep(vec![0; MOST / 2].into());
        }
        assert_eq!(["a", "b", "c"].map(|name| known(name, now)), [false, true, true]);
        assert!(!known("c", now + KEPT_FOR + Duration::from_secs(1)));
    }

    #[test]
    fn a_request_that_was_not_answered_may_come_again() {
        let (answers, now) = (Arc::new(Answers::default()), SystemTime::now());
        let place = answers.begin(once("a", ""), now).unwrap().err().unwrap();
        assert!(answers.begin(once("a", ""), now).is_err());
        assert!(answers.begin(once("a", "other"), now).is_err());
        drop(place);
        assert!(answers.begin(once("a", "other"), now).unwrap().is_err());
    }
}
