use std::fmt;

use serde::{Serialize, Serializer};

/// Maximum number of requests per day, 0–1,000,000,000, where 0 means unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DailyLimit(u32);

/// Error for a daily limit that is not a whole number from 0 (unlimited) to 1,000,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidDailyLimit;

impl DailyLimit {
    /// No limit.
    pub const UNLIMITED: Self = Self(0);
    /// Maximum number of requests per day that a limit can have.
    pub const MAX: u32 = 1_000_000_000;

    /// Creates a limit of `requests` per day, 0 for unlimited.
    pub fn new(requests: u32) -> Result<Self, InvalidDailyLimit> {
        if requests <= Self::MAX { Ok(Self(requests)) } else { Err(InvalidDailyLimit) }
    }

    /// Returns the limit as a number, 0 for unlimited.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Returns the limit, or `None` if it is unlimited.
    pub fn limited(self) -> Option<u64> {
        (self.0 > 0).then_some(u64::from(self.0))
    }
}

impl TryFrom<i64> for DailyLimit {
    type Error = InvalidDailyLimit;

    fn try_from(requests: i64) -> Result<Self, InvalidDailyLimit> {
        u32::try_from(requests).map_err(|_| InvalidDailyLimit).and_then(Self::new)
    }
}

impl Serialize for DailyLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl fmt::Display for InvalidDailyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a daily limit is a whole number from 0 (unlimited) to 1000000000")
    }
}

impl std::error::Error for InvalidDailyLimit {}
