//! Keys that were issued elsewhere.

use std::time::SystemTime;

use crate::{
    clock::Day,
    key::{DailyLimit, KeyHash, KeyId, KeyRecord, SecretKey},
};

/// A key that was issued elsewhere.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImportedKey {
    /// Its hash.
    pub hash: KeyHash,
    /// The key with its secret part left out.
    pub masked: String,
    /// The id of its record; a new one if there is none.
    pub id: Option<KeyId>,
    /// What the operator calls it.
    pub label: String,
    /// Requests a day.
    pub daily_limit: DailyLimit,
    /// When it was issued, if that is known.
    pub created_at: Option<SystemTime>,
    /// From when on it is refused.
    pub expires_at: Option<SystemTime>,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Units that it used.
    pub used: Vec<(Day, u64)>,
}

/// What came of importing a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Imported {
    /// It works from now on.
    New(KeyId),
    /// It is known already, and stays as it is. Days of which nothing was known are filled in.
    Unchanged(KeyId),
    /// Another key has its id.
    IdTaken,
}

impl ImportedKey {
    /// A key in clear.
    pub fn clear(key: &SecretKey, daily_limit: DailyLimit) -> Self {
        Self::hashed(key.hash(), key.masked(), daily_limit)
    }

    /// A key of which only the hash is known.
    pub fn hashed(hash: KeyHash, masked: String, daily_limit: DailyLimit) -> Self {
        Self {
            hash,
            masked,
            id: None,
            label: String::new(),
            daily_limit,
            created_at: None,
            expires_at: None,
            disabled: false,
            used: Vec::new(),
        }
    }

    /// The record that it gets.
    pub(crate) fn record(&self) -> KeyRecord {
        let id = self.id.clone().unwrap_or_else(KeyId::generate);
        KeyRecord {
            masked: self.masked.clone(),
            label: self.label.clone(),
            created_at: self.created_at,
            expires_at: self.expires_at,
            disabled: self.disabled,
            ..KeyRecord::new(id, self.daily_limit)
        }
    }
}

/// What the audit trail calls it.
pub(crate) const IMPORTED: &str = "key.import";
