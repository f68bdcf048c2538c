use std::{
    hash::{BuildHasher, Hash, RandomState},
    iter,
};

/// Values for any number of subjects, in memory of a fixed size: subjects with the same hash share a
/// value. The hash has a random seed, so that nobody can choose to share the value of another subject.
pub(crate) struct Slots<T> {
    seed: RandomState,
    values: Box<[T]>,
}

impl<T: Default> Slots<T> {
    pub(crate) fn new(number: usize) -> Self {
        let values = iter::repeat_with(T::default).take(number).collect();
        Self { seed: RandomState::new(), values }
    }
}

impl<T> Slots<T> {
    /// Returns the value of this subject.
    pub(crate) fn of(&self, subject: &impl Hash) -> &T {
        let slot = self.seed.hash_one(subject) as usize % self.values.len();
        &self.values[slot]
    }
}
