use std::sync::OnceLock;

/// Handles for each value of a label, made when the value is first seen. Of more than so many
/// values, the rest share one.
pub(crate) struct Family<T> {
    known: Box<[Place<T>]>,
    other: T,
    make: fn(&str) -> T,
}

/// A value and its handles.
type Place<T> = OnceLock<(Box<str>, T)>;

/// The value of the label that the rest share.
pub(crate) const OTHER: &str = "other";

impl<T> Family<T> {
    pub(crate) fn new(most: usize, make: fn(&str) -> T) -> Self {
        let known = (0..most).map(|_| OnceLock::new()).collect();
        Self { known, other: make(OTHER), make }
    }

    /// The handles of this value, if it is known: a few comparisons.
    pub(crate) fn find(&self, value: &str) -> Option<&T> {
        let mut known = self.known.iter().map_while(OnceLock::get);
        known.find(|(name, _)| **name == *value).map(|(_, handles)| handles)
    }

    /// The handles of this value, which is known from now on if there is room.
    pub(crate) fn get(&self, value: &str) -> &T {
        for place in &self.known {
            let (name, handles) = place.get_or_init(|| (value.into(), (self.make)(value)));
            if **name == *value {
                return handles;
            }
        }
        &self.other
    }

    pub(crate) fn other(&self) -> &T {
        &self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_most_share_one() {
        let family = Family::new(2, str::to_owned);
        let values = ["a", "b", "a", "c", "d", "b"];
        assert_eq!(values.map(|value| family.get(value)), ["a", "b", "a", OTHER, OTHER, "b"]);
    }
}
