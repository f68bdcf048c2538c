//! Keys that were issued elsewhere.

use std::{error::Error, fmt, time::SystemTime};

use crate::{
    admin::store::KeySummary,
    clock::{Day, parse_timestamp, rfc3339},
    key::{InvalidLimit, KeyHash, KeyId, KeyLimits, KeyRecord, LIMIT_NAMES, Limit, SecretKey},
};

/// Key that was issued elsewhere and is to be imported. Every store can keep its record.
#[derive(Clone, Debug)]
pub struct ImportedKey {
    hash: KeyHash,
    record: KeyRecord,
    used: Vec<(Day, u64)>,
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
    /// Creates an import of the key with this hash.
    ///
    /// # Errors
    ///
    /// The record's limit has no stored form ([`Limit::to_stored`]).
    pub fn new(hash: KeyHash, record: KeyRecord) -> Result<Self, InvalidLimit> {
        record.check()?;
        Ok(Self { hash, record, used: Vec::new() })
    }

    /// Sets the units that were used on past days.
    #[must_use]
    pub fn with_used(self, used: Vec<(Day, u64)>) -> Self {
        Self { used, ..self }
    }

    /// Returns the hash of the key.
    pub fn hash(&self) -> KeyHash {
        self.hash
    }

    /// Returns the record of the key.
    pub fn record(&self) -> &KeyRecord {
        &self.record
    }

    /// Returns the units that were used on past days.
    pub fn used(&self) -> &[(Day, u64)] {
        &self.used
    }

    /// Reads a key from the text columns of a file or table.
    ///
    /// The columns are `key` in clear, or `key_sha256` (64 hexadecimal digits) and optionally the
    /// masked `key`; `daily_limit`; and optionally `id`, `label`, `created_at`, `expires_at`, `disabled` and the
    /// [other limits](crate::key::KeyLimit), of which those that are absent are unlimited.
    ///
    /// # Errors
    ///
    /// Returns the first column that is missing or invalid.
    pub fn from_columns<'a>(
        column: impl Fn(&'static str) -> Option<&'a str>,
    ) -> Result<Self, InvalidColumn> {
        let column = |name| column(name).filter(|text| !text.is_empty());
        let limit = |name| {
            let Some(text) = column(name) else { return Ok(None) };
            let limit = text.parse().ok().and_then(|number: i64| Limit::from_stored(number).ok());
            let expected = "must be a whole number from 0 (unlimited) to 1000000000";
            limit.map(Some).ok_or_else(|| InvalidColumn::new(name, expected))
        };
        let daily_limit = limit("daily_limit")?
            .ok_or_else(|| InvalidColumn::new("daily_limit", "must be given"))?;
        let limits = KeyLimits::try_read(|of| {
            limit(of.name()).map(|limit| limit.unwrap_or(Limit::Unlimited))
        })?;
        let (hash, masked) = match column("key_sha256") {
            Some(digits) => {
                let hash = KeyHash::from_hex(digits).ok_or_else(|| {
                    InvalidColumn::new("key_sha256", "must be 64 hexadecimal digits")
                })?;
                let masked = column("key").filter(|key| key.contains('…') && is_label(key));
                (hash, masked.unwrap_or("…").to_owned())
            }
            None => {
                let secret = SecretKey::parse(column("key").unwrap_or_default());
                let secret = secret
                    .map_err(|error| InvalidColumn::new("key", format!("is not a key: {error}")))?;
                (secret.hash(), secret.masked())
            }
        };
        let id = match column("id") {
            Some(id) if !is_id(id) => {
                let expected = "must be 1 to 128 ASCII letters, digits, `-`, `_` or `.`, other than `.`, `..`, `export` and `import`";
                return Err(InvalidColumn::new("id", expected));
            }
            id => id.map(KeyId::from),
        };
        let label = column("label").unwrap_or_default().to_owned();
        if !is_label(&label) {
            let expected = "must have at most 200 characters and no control characters";
            return Err(InvalidColumn::new("label", expected));
        }
        let time = |name| {
            let text: Option<&str> = column(name);
            let parse =
                |text| parse_timestamp(text).ok_or(InvalidColumn::new(name, "must be a time"));
            text.map(parse).transpose()
        };
        let (created_at, expires_at) = (time("created_at")?, time("expires_at")?);
        // Spreadsheets write `TRUE` and `FALSE`.
        let disabled = match column("disabled").map(str::to_ascii_lowercase).as_deref() {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(_) => return Err(InvalidColumn::new("disabled", "must be true or false")),
        };
        let id = id.unwrap_or_else(KeyId::generate);
        let record =
            KeyRecord { id, masked, label, daily_limit, limits, created_at, expires_at, disabled };
        Ok(Self { hash, record, used: Vec::new() })
    }
}

/// Columns of a key in a CSV file before those of its limits.
#[cfg_attr(not(feature = "admin"), allow(dead_code))]
const FIRST_COLUMNS: [&str; 8] =
    ["id", "key", "key_sha256", "label", "daily_limit", "created_at", "expires_at", "disabled"];

/// Columns of a key in a CSV file.
#[cfg_attr(not(feature = "admin"), allow(dead_code))]
pub(crate) const KEY_COLUMNS: [&str; FIRST_COLUMNS.len() + LIMIT_NAMES.len()] = {
    let mut columns = [""; FIRST_COLUMNS.len() + LIMIT_NAMES.len()];
    let (begin, limits) = columns.split_at_mut(FIRST_COLUMNS.len());
    begin.copy_from_slice(&FIRST_COLUMNS);
    limits.copy_from_slice(&LIMIT_NAMES);
    columns
};

/// Returns the cells of a key in the order of [`KEY_COLUMNS`].
#[cfg_attr(not(feature = "admin"), allow(dead_code))]
pub(crate) fn key_cells(key: &KeySummary) -> [String; KEY_COLUMNS.len()] {
    let KeyRecord { id, masked, label, daily_limit, limits, created_at, expires_at, disabled } =
        &key.record;
    let time = |at: &Option<SystemTime>| at.map(rfc3339).unwrap_or_default();
    let first: [String; FIRST_COLUMNS.len()] = [
        id.to_string(),
        masked.clone(),
        key.hash.map(|hash| hash.to_hex()).unwrap_or_default(),
        label.clone(),
        daily_limit.number().to_string(),
        time(created_at),
        time(expires_at),
        disabled.to_string(),
    ];
    let limits = limits.iter().map(|(_, limit)| limit.number().to_string());
    // They are as many as there are columns.
    let mut cells = first.into_iter().chain(limits);
    [(); KEY_COLUMNS.len()].map(|()| cells.next().unwrap_or_default())
}

/// Whether the id can be used as a path segment of the admin API.
fn is_id(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_reserved = text.bytes().all(|byte| byte == b'.') || ["export", "import"].contains(&text);
    text.len() <= 128 && text.bytes().all(is_allowed) && !is_reserved
}

/// Whether the text is valid as a label: a single line of at most 200 characters.
pub(crate) fn is_label(text: &str) -> bool {
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
