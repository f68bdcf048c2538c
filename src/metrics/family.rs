use std::sync::OnceLock;

/// Handles for the values of a label, each created when its value is first seen. Values beyond the
/// maximum share the handles of [`OTHER`].
pub(crate) struct Family<T> {
    known: Box<[Entry<T>]>,
    other: T,
    new_handles: fn(&str) -> T,
}

/// A value and its handles.
type Entry<T> = OnceLock<(Box<str>, T)>;

/// The label's value for all values beyond the maximum.
pub(crate) const OTHER: &str = "other";

impl<T> Family<T> {
    pub(crate) fn new(max_values: usize, new_handles: fn(&str) -> T) -> Self {
        let known = (0..max_values).map(|_| OnceLock::new()).collect();
        Self { known, other: new_handles(OTHER), new_handles }
    }

    /// Returns the handles of a known value, after a few comparisons.
    pub(crate) fn find(&self, value: &str) -> Option<&T> {
        let mut known = self.known.iter().map_while(OnceLock::get);
        known.find(|(name, _)| **name == *value).map(|(_, handles)| handles)
    }

    /// Returns the handles of a value, which becomes known unless the maximum is reached.
    pub(crate) fn get(&self, value: &str) -> &T {
        for entry in &self.known {
            let (name, handles) = entry.get_or_init(|| (value.into(), (self.new_handles)(value)));
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
    fn values_beyond_the_maximum_share_handles() {
        let family = Family::new(2, str::to_owned);
        let values = ["a", "b", "a", "c", "d", "b"];
        assert_eq!(values.map(|value| family.get(value)), ["a", "b", "a", OTHER, OTHER, "b"]);
    }
}
