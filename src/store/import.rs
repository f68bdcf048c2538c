//! Keys that were issued elsewhere.

use std::{error::Error, fmt, time::SystemTime};

use crate::{
    clock::{Day, parse_timestamp},
    key::{DailyLimit, KeyHash, KeyId, KeyRecord, SecretKey},
};

/// Key that was issued elsewhere and is to be imported.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImportedKey {
    /// Hash of the key.
    pub hash: KeyHash,
    /// The key with its secret part left out.
    pub masked: String,
    /// Id of the key's record. A new id is generated if it is `None`.
    pub id: Option<KeyId>,
    /// Label that the operator gives the key.
    pub label: String,
    /// Maximum number of requests per day.
    pub daily_limit: DailyLimit,
    /// Time at which the key was issued, if known.
    pub created_at: Option<SystemTime>,
    /// Time from which the key is rejected.
    pub expires_at: Option<SystemTime>,
    /// Whether the key is disabled.
    pub disabled: bool,
    /// Units that were used on past days.
    pub used: Vec<(Day, u64)>,
}

/// Outcome of importing a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportOutcome {
    /// The key was imported under this id and is valid from now on.
    New(KeyId),
    /// The key already exists under this id and was left unchanged. Used units were added for days
    /// on which none were known.
    Unchanged(KeyId),
    /// The id belongs to another key.
    IdTaken,
    /// The key was valid under this id until it was rotated or deleted, and is not imported again.
    Revoked(KeyId),
}

impl ImportedKey {
    /// Creates an import from a key in clear.
    pub fn from_secret(key: &SecretKey, daily_limit: DailyLimit) -> Self {
        Self::from_hash(key.hash(), key.masked(), daily_limit)
    }

    /// Creates an import from the hash of a key.
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

    /// Reads a key from the text columns of a file or table.
    ///
    /// The columns are `key` in clear, or `key_sha256` (64 hexadecimal digits) and optionally the
    /// masked `key`; `daily_limit`; and optionally `id`, `label`, `created_at`, `expires_at` and
    /// `disabled`.
    ///
    /// # Errors
    ///
    /// Returns the first column that is missing or invalid.
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
                let masked = column("key").filter(|key| key.contains('…') && is_label(key));
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
        if !is_label(&key.label) {
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
        // Spreadsheets write `TRUE` and `FALSE`.
        key.disabled = match column("disabled").map(str::to_ascii_lowercase).as_deref() {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(_) => return Err(InvalidColumn::new("disabled", "must be true or false")),
        };
        Ok(key)
    }

    /// Creates the record of the imported key.
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

/// Whether the id can be used as a path segment of the admin API.
fn is_id(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_reserved = text.bytes().all(|byte| byte == b'.') || ["export", "import"].contains(&text);
    text.len() <= 128 && text.bytes().all(is_allowed) && !is_reserved
}

/// Whether the text is valid as a label: a single line of at most 200 characters.
fn is_label(text: &str) -> bool {
    text.chars().count() <= 200 && !text.chars().any(char::is_control)
}

/// Error for a column with a missing or invalid value.
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

/// Audit action of an imported key.
pub(crate) const KEY_IMPORTED: &str = "key.import";
