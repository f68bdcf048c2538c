use std::fmt;

/// Maximum number of units per period.
///
/// ```
/// use tower_quota::key::Limit;
///
/// assert_eq!(Limit::Units(200).units(), Some(200));
/// assert_eq!(Limit::Unlimited.units(), None);
/// // In files and in the admin API 0 means unlimited.
/// assert_eq!(Limit::from_stored(0), Ok(Limit::Unlimited));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// At most this number of units, where 0 admits nothing.
    Units(u64),
}

/// Error for a key's limit that is not a whole number from 0 (unlimited) to 1,000,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidLimit;

impl Limit {
    /// Maximum number of units that the limit of a key's record can have.
    pub const MAX_STORED: u64 = 1_000_000_000;

    /// Reads the limit of a key as files and the admin API have it: 0 for unlimited, or 1–1,000,000,000
    /// units.
    ///
    /// # Errors
    ///
    /// The number is negative or larger.
    pub fn from_stored(number: i64) -> Result<Self, InvalidLimit> {
        match u64::try_from(number) {
            Ok(0) => Ok(Self::Unlimited),
            Ok(units) if units <= Self::MAX_STORED => Ok(Self::Units(units)),
            _ => Err(InvalidLimit),
        }
    }

    /// Returns the number that [`from_stored`](Self::from_stored) reads.
    ///
    /// # Errors
    ///
    /// The limit has 0 units or more than 1,000,000,000, which have no such number. To issue a key without
    /// units, disable it.
    pub fn to_stored(self) -> Result<u32, InvalidLimit> {
        match self {
            Self::Unlimited => Ok(0),
            Self::Units(units @ 1..=Self::MAX_STORED) => Ok(units as u32),
            Self::Units(_) => Err(InvalidLimit),
        }
    }

    /// Returns the number that files, reports and the admin API show: 0 for unlimited.
    pub fn number(self) -> u64 {
        self.units().unwrap_or(0)
    }

    /// Returns the number of units, or `None` if it is unlimited.
    pub fn units(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::Units(units) => Some(units),
        }
    }
}

impl fmt::Display for InvalidLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key's limit is a whole number from 0 (unlimited) to 1000000000")
    }
}

impl std::error::Error for InvalidLimit {}
