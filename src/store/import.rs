//! Keys that were issued elsewhere.

use std::{error::Error, fmt, time::SystemTime};

use crate::{
    clock::{Day, parse_timestamp},
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
pub enum ImportOutcome {
    /// It works from now on.
    New(KeyId),
    /// It is known already, and stays as it is. Days of which nothing was known are filled in.
    Unchanged(KeyId),
    /// Another key has its id.
    IdTaken,
    /// It was known once, and has been rotated away from this record or deleted with it. It stays so.
    Revoked(KeyId),
}

impl ImportedKey {
    /// A key in clear.
    pub fn from_secret(key: &SecretKey, daily_limit: DailyLimit) -> Self {
        Self::from_hash(key.hash(), key.masked(), daily_limit)
    }

    /// A key of which only the hash is known.
    pub fn from_hash(hash: KeyHash, masked: String, daily_limit: DailyLimit) -> Self {
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

    /// Reads a key from columns of text, as files and tables hold them: `key` in clear, or
    /// `key_sha256` (64 hexadecimal digits) and perhaps the masked `key`; `daily_limit`; and, where
    /// there are such, `id`, `label`, `created_at`, `expires_at`, `disabled`.
    ///
    /// # Errors
    ///
    /// The first column that holds, or lacks, what it must not.
    pub fn from_columns<'a>(
        column: impl Fn(&'static str) -> Option<&'a str>,
    ) -> Result<Self, InvalidColumn> {
        let column = |name| column(name).filter(|text| !text.is_empty());
        let limit = column("daily_limit")
            .ok_or_else(|| InvalidColumn::new("daily_limit", "must be given"))?;
        let limit = limit.parse().ok().and_then(|limit: i64| DailyLimit::try_from(limit).ok());
        let limit = limit.ok_or_else(|| {
            let expected = "must be a whole number from 0 (unlimited) to 1000000000";
            InvalidColumn::new("daily_limit", expected)
        })?;
        let mut key = match column("key_sha256") {
            Some(digits) => {
                let hash = KeyHash::from_hex(digits).ok_or_else(|| {
                    InvalidColumn::new("key_sha256", "must be 64 hexadecimal digits")
                })?;
                let masked = column("key").filter(|key| key.contains('…') && is_line(key));
                Self::from_hash(hash, masked.unwrap_or("…").to_owned(), limit)
            }
            None => {
                let secret = SecretKey::parse(column("key").unwrap_or_default());
                let secret = secret
                    .map_err(|error| InvalidColumn::new("key", format!("is no key: {error}")))?;
                Self::from_secret(&secret, limit)
            }
        };
        key.id = match column("id") {
            Some(id) if !is_id(id) => {
                let expected =
                    "must be 1 to 128 ASCII letters, digits, `-`, `_` or `.`, and no word of paths";
                return Err(InvalidColumn::new("id", expected));
            }
            id => id.map(KeyId::from),
        };
        key.label = column("label").unwrap_or_default().to_owned();
        if !is_line(&key.label) {
            let expected = "must have at most 200 characters and no control characters";
            return Err(InvalidColumn::new("label", expected));
        }
        let time = |name| {
            let text: Option<&str> = column(name);
            let read =
                |text| parse_timestamp(text).ok_or(InvalidColumn::new(name, "must be a time"));
            text.map(read).transpose()
        };
        (key.created_at, key.expires_at) = (time("created_at")?, time("expires_at")?);
        // Spreadsheets write it in capitals.
        key.disabled = match column("disabled").map(str::to_ascii_lowercase).as_deref() {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(_) => return Err(InvalidColumn::new("disabled", "must be true or false")),
        };
        Ok(key)
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

/// Whether a path can name the id.
fn is_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_word = text.bytes().all(|byte| byte == b'.') || ["export", "import"].contains(&text);
    text.len() <= 128 && text.bytes().all(is_plain) && !is_word
}

fn is_line(text: &str) -> bool {
    text.chars().count() <= 200 && !text.chars().any(char::is_control)
}

/// A column that does not hold what it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidColumn {
    name: &'static str,
    problem: String,
}

impl InvalidColumn {
    fn new(name: &'static str, problem: impl Into<String>) -> Self {
        Self { name, problem: problem.into() }
    }
}

impl fmt::Display for InvalidColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.name, self.problem)
    }
}

impl Error for InvalidColumn {}

/// What the audit trail calls it.
pub(crate) const IMPORTED: &str = "key.import";
