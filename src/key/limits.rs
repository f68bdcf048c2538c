use super::Limit;

/// Defines [`KeyLimit`], of which there is one definition: whatever has the limits of a key goes through all of them.
macro_rules! limits {
    ($($(#[$attribute:meta])* $limit:ident: $name:literal,)*) => {
        /// A limit of a key besides its requests per day.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum KeyLimit {
            $($(#[$attribute])* $limit,)*
        }

        impl KeyLimit {
            /// All limits.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$limit),*];

            /// Returns the name of the limit in tables, files and the admin API.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$limit => $name,)*
                }
            }
        }

        /// The names of all limits.
        #[cfg(feature = "admin")]
        pub(crate) const LIMIT_NAMES: [&str; KeyLimit::ALL.len()] = [$($name),*];

        /// Columns of all limits that are empty.
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        macro_rules! null_limits {
            ($kind:literal) => { concat!($(", NULL", $kind, " AS ", $name),*) };
        }
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        pub(crate) use null_limits;
    };
}

limits! {
    /// Requests per calendar month.
    Monthly: "monthly_limit",
    /// Requests per minute.
    Minute: "minute_limit",
    /// Requests in flight.
    InFlight: "max_in_flight",
}

/// The limits of a key besides its requests per day. By default it has none.
///
/// ```
/// use tower_quota::key::{KeyLimit, KeyLimits, Limit};
///
/// let limits = KeyLimits::default().with(KeyLimit::Monthly, Limit::Units(2000));
/// assert_eq!(limits.get(KeyLimit::Monthly), Limit::Units(2000));
/// assert_eq!(limits.get(KeyLimit::Minute), Limit::Unlimited);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLimits([Limit; KeyLimit::ALL.len()]);

/// New values for some limits of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LimitChanges([Option<Limit>; KeyLimit::ALL.len()]);

/// The limits of keys that are issued or typed in without them.
#[cfg(any(feature = "admin", feature = "engine"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DefaultLimits {
    pub(crate) daily: Limit,
    pub(crate) others: KeyLimits,
}

impl KeyLimits {
    /// Returns one of the limits.
    pub fn get(&self, limit: KeyLimit) -> Limit {
        self.0[limit as usize]
    }

    /// Sets one of the limits.
    #[must_use]
    pub fn with(mut self, limit: KeyLimit, value: Limit) -> Self {
        self.0[limit as usize] = value;
        self
    }

    /// Returns all limits, in the order of [`KeyLimit::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (KeyLimit, Limit)> {
        KeyLimit::ALL.into_iter().zip(self.0)
    }

    /// Reads each limit with `read`.
    #[cfg(any(feature = "admin", feature = "engine"))]
    pub(crate) fn try_read<E>(
        mut read: impl FnMut(KeyLimit) -> Result<Limit, E>,
    ) -> Result<Self, E> {
        let mut limits = Self::default();
        for limit in KeyLimit::ALL {
            limits = limits.with(limit, read(limit)?);
        }
        Ok(limits)
    }

    /// Checks that each limit has a stored form.
    #[cfg(any(feature = "admin", feature = "memory", feature = "engine"))]
    pub(crate) fn check(&self) -> Result<(), super::InvalidLimit> {
        self.0.iter().try_for_each(|limit| limit.to_stored().map(drop))
    }
}

impl Default for KeyLimits {
    fn default() -> Self {
        Self([Limit::Unlimited; KeyLimit::ALL.len()])
    }
}

impl LimitChanges {
    #[must_use]
    pub(crate) fn with(mut self, limit: KeyLimit, value: Option<Limit>) -> Self {
        self.0[limit as usize] = value;
        self
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (KeyLimit, Limit)> {
        let all = KeyLimit::ALL.into_iter().zip(self.0);
        all.filter_map(|(limit, value)| Some((limit, value?)))
    }

    /// Sets the limits that have a new value.
    pub(crate) fn apply(&self, limits: &mut KeyLimits) {
        for (limit, value) in self.iter() {
            *limits = limits.with(limit, value);
        }
    }
}

#[cfg(any(feature = "admin", feature = "engine"))]
impl DefaultLimits {
    pub(crate) const fn daily(daily: Limit) -> Self {
        Self { daily, others: KeyLimits([Limit::Unlimited; KeyLimit::ALL.len()]) }
    }
}
