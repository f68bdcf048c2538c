//! Summaries, states and pages of keys.

use std::cmp::Ordering;
use std::{fmt, str::FromStr, time::SystemTime};

use serde::{Serialize, Serializer};

use crate::{
    admin::store::ClaimSummary,
    key::{KeyHash, KeyRecord, KeyVersion, SecretKey, hex, unhex},
};

/// Record of a key together with its usage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySummary {
    /// Record of the key.
    pub record: KeyRecord,
    /// Hash of the key. `None` if the key was typed into a table in clear and has not been hashed
    /// yet.
    pub hash: Option<KeyHash>,
    /// Units used today.
    pub used_today: u64,
    /// Units used on all days.
    pub total_used: u64,
    /// Time of the last admitted request.
    pub last_used_at: Option<SystemTime>,
    /// Latest claim, unless it was withdrawn.
    pub claim: Option<ClaimSummary>,
}

impl KeySummary {
    /// Creates the summary of an unused key without a claim. Set the other fields afterwards.
    pub fn new(record: KeyRecord, hash: Option<KeyHash>) -> Self {
        Self { record, hash, used_today: 0, total_used: 0, last_used_at: None, claim: None }
    }

    /// Returns the version of the record, which does not depend on usage.
    pub fn version(&self) -> KeyVersion {
        KeyVersion::of(&self.record, self.hash)
    }

    /// Returns the state of the key.
    pub fn state(&self, now: SystemTime) -> KeyState {
        if self.record.disabled {
            KeyState::Disabled
        } else if self.record.is_expired(now) {
            KeyState::Expired
        } else if self.remaining() == Some(0) {
            KeyState::Exhausted
        } else {
            KeyState::Active
        }
    }

    /// Returns the number of units left today, or `None` if there is no limit.
    pub fn remaining(&self) -> Option<u64> {
        self.record.daily_limit.units().map(|limit| limit.saturating_sub(self.used_today))
    }
}

/// State of a key. If several apply, the first of disabled, expired and exhausted is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// Requests with the key are admitted.
    Active,
    /// The key is disabled.
    Disabled,
    /// The key has expired.
    Expired,
    /// The key has no units left today.
    Exhausted,
}

impl KeyState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Active, Self::Disabled, Self::Expired, Self::Exhausted];

    /// Returns the stable name of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Exhausted => "exhausted",
        }
    }
}

impl Serialize for KeyState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Selection of a page of keys.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KeyPageQuery {
    /// Maximum number of keys.
    pub limit: usize,
    /// End of the previous page, which is its [`KeyPage::next`].
    pub after: Option<PageCursor>,
    /// Only keys whose label, id or masked key contains this text (ASCII letters match in any
    /// case), the key with this text, and keys whose SHA-256 starts with these (at least eight)
    /// hexadecimal digits.
    pub search: Option<String>,
    /// Order of the keys.
    pub sort: KeySort,
    /// Only keys in this state.
    pub state: Option<KeyState>,
}

/// Order of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeySort {
    /// In the order in which they were issued.
    #[default]
    Issued,
    /// Most recently issued first.
    Newest,
    /// By label, where the case of ASCII letters is ignored.
    Label,
    /// Largest used share of today's limit first. Keys that are unused or unlimited come last, in
    /// the order in which they were issued.
    NearestLimit,
}

impl KeySort {
    /// All orders.
    pub const ALL: [Self; 4] = [Self::Issued, Self::Newest, Self::Label, Self::NearestLimit];

    /// Returns the stable name of the order.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Newest => "newest",
            Self::Label => "label",
            Self::NearestLimit => "nearest_limit",
        }
    }
}

impl KeyPageQuery {
    /// Creates a query for the first `limit` keys in the order in which they were issued. Set the other fields
    /// afterwards.
    pub fn first(limit: usize) -> Self {
        Self { limit, after: None, search: None, sort: KeySort::Issued, state: None }
    }

    /// Whether the search finds this key. `old_hash` is the hash of a rotated secret that is still valid.
    pub fn finds(&self, key: &KeySummary, old_hash: Option<KeyHash>) -> bool {
        let Some(search) = &self.search else { return true };
        let text = search.to_ascii_lowercase();
        let KeyRecord { id, label, masked, .. } = &key.record;
        let has_text = |field: &str| field.to_ascii_lowercase().contains(&text);
        let presented = SecretKey::parse(search).ok().map(|secret| secret.hash());
        has_text(label)
            || has_text(id.as_str())
            || has_text(masked)
            || presented.is_some() && [key.hash, old_hash].contains(&presented)
            || text.len() >= 8 && key.hash.is_some_and(|hash| hash.to_hex().starts_with(&text))
    }

    /// Returns the page of these keys and their sequence numbers, in any order. Selects those in the query's
    /// state; the caller has selected those that the search [finds](Self::finds).
    pub fn page(
        &self,
        keys: impl IntoIterator<Item = (u64, KeySummary)>,
        now: SystemTime,
    ) -> KeyPage {
        let is_after = |position: &PagePosition| {
            let after = self.after.as_ref();
            after.is_none_or(|after| position.compare(&after.0, self.sort).is_gt())
        };
        let mut keys: Vec<(PagePosition, KeySummary)> = keys
            .into_iter()
            .filter(|(_, key)| self.state.is_none_or(|state| key.state(now) == state))
            .map(|(number, key)| (key.position(self.sort, number), key))
            .filter(|(position, _)| is_after(position))
            .collect();
        keys.sort_by(|(a, _), (b, _)| a.compare(b, self.sort));
        let has_more = keys.len() > self.limit;
        keys.truncate(self.limit);
        let last = keys.last().filter(|_| has_more);
        let next = last.map(|(position, _)| PageCursor(position.clone()));
        KeyPage { keys: keys.into_iter().map(|(_, key)| key).collect(), next }
    }
}

/// Page of keys.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct KeyPage {
    /// Keys of the page.
    pub keys: Vec<KeySummary>,
    /// Cursor of the next page, if there is one.
    pub next: Option<PageCursor>,
}

impl KeyPage {
    /// Creates a page. `next` is the position of its last key, if other keys follow.
    pub fn new(keys: Vec<KeySummary>, next: Option<PagePosition>) -> Self {
        Self { keys, next: next.map(PageCursor) }
    }
}

/// End of a page, after which the next page begins. Its text form consists of letters, digits and
/// dots.
#[derive(Clone, Debug, PartialEq)]
pub struct PageCursor(PagePosition);

/// Position of a key in one of the orders, for stores that page by a query of their own. Each ends with the
/// sequence number of the key, which is larger for keys that were issued later.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PagePosition {
    /// Position in [`KeySort::Issued`] and [`KeySort::Newest`].
    Number(u64),
    /// Position in [`KeySort::Label`], with the label's bytes as they are stored.
    Label(Vec<u8>, u64),
    /// Position in [`KeySort::NearestLimit`] of a key that has used this share of its limit.
    Share(f64, u64),
    /// Position in [`KeySort::NearestLimit`] of a key that is unused or unlimited.
    NoShare(u64),
}

impl KeySummary {
    /// Returns the position of the key with this sequence number.
    pub fn position(&self, sort: KeySort, number: u64) -> PagePosition {
        let limit = self.record.daily_limit.units().unwrap_or(0);
        match sort {
            KeySort::Issued | KeySort::Newest => PagePosition::Number(number),
            KeySort::Label => PagePosition::Label(self.record.label.clone().into(), number),
            KeySort::NearestLimit if limit > 0 && self.used_today > 0 => {
                PagePosition::Share(self.used_today as f64 / limit as f64, number)
            }
            KeySort::NearestLimit => PagePosition::NoShare(number),
        }
    }
}

impl PagePosition {
    /// Compares two positions in the same order.
    fn compare(&self, other: &Self, sort: KeySort) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) if sort == KeySort::Newest => b.cmp(a),
            (Self::Number(a), Self::Number(b)) => a.cmp(b),
            (Self::Label(a, number_a), Self::Label(b, number_b)) => {
                let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
                a.cmp(&b).then(number_a.cmp(number_b))
            }
            (Self::Share(a, number_a), Self::Share(b, number_b)) => {
                b.total_cmp(a).then(number_a.cmp(number_b))
            }
            (Self::NoShare(a), Self::NoShare(b)) => a.cmp(b),
            (Self::Share(..), Self::NoShare(_)) => Ordering::Less,
            (Self::NoShare(_), Self::Share(..)) => Ordering::Greater,
            // The cursor of another order.
            _ => Ordering::Greater,
        }
    }
}

/// Error for a text that is not a [`PageCursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidPageCursor;

impl PageCursor {
    /// Returns the position of the last key of the page.
    pub fn position(&self) -> &PagePosition {
        &self.0
    }

    /// Whether the cursor belongs to a page in this order.
    pub(crate) fn fits(&self, sort: KeySort) -> bool {
        match self.0 {
            PagePosition::Number(_) => matches!(sort, KeySort::Issued | KeySort::Newest),
            PagePosition::Label(..) => sort == KeySort::Label,
            PagePosition::Share(..) | PagePosition::NoShare(_) => sort == KeySort::NearestLimit,
        }
    }
}

impl fmt::Display for PageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            PagePosition::Number(number) => write!(f, "{number}"),
            PagePosition::Label(label, number) => write!(f, "l{number}.{}", hex(label)),
            PagePosition::Share(share, number) => write!(f, "s{number}.{:016x}", share.to_bits()),
            PagePosition::NoShare(number) => write!(f, "n{number}"),
        }
    }
}

/// Serialises the cursor as a number if it is one, else as a string.
impl Serialize for PageCursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            PagePosition::Number(number) => serializer.serialize_u64(number),
            _ => serializer.collect_str(self),
        }
    }
}

impl FromStr for PageCursor {
    type Err = InvalidPageCursor;

    fn from_str(text: &str) -> Result<Self, InvalidPageCursor> {
        parse_position(text).map(Self).ok_or(InvalidPageCursor)
    }
}

fn parse_position(text: &str) -> Option<PagePosition> {
    // Each position has one text.
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let number = |digits: &str| -> Option<u64> {
        let is_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        // A store's integers have a sign, and all of 18 digits fit.
        if is_digits && digits.len() <= 18 { digits.parse().ok() } else { None }
    };
    if let Some(rest) = text.strip_prefix('n') {
        return number(rest).map(PagePosition::NoShare);
    }
    if let Some(rest) = text.strip_prefix('l') {
        let (digits, label) = rest.split_once('.')?;
        return Some(PagePosition::Label(unhex(label)?, number(digits)?));
    }
    if let Some(rest) = text.strip_prefix('s') {
        let (digits, share) = rest.split_once('.')?;
        let share = f64::from_bits(u64::from_be_bytes(unhex(share)?.try_into().ok()?));
        let is_share = share.is_finite() && share.is_sign_positive();
        return is_share.then_some(PagePosition::Share(share, number(digits)?));
    }
    number(text).map(PagePosition::Number)
}

impl fmt::Display for InvalidPageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected the `next` of a page")
    }
}

impl std::error::Error for InvalidPageCursor {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text_form() {
        for position in [
            PagePosition::Number(7),
            PagePosition::Label("密钥 1".into(), 8),
            PagePosition::Share(0.125, 9),
            PagePosition::NoShare(10),
        ] {
            let cursor = PageCursor(position);
            let text = cursor.to_string();
            assert!(
                text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'),
                "{text}"
            );
            assert_eq!(text.parse(), Ok(cursor));
        }
        for bad in [
            "",
            "-1",
            "+1",
            "x",
            "l1",
            "l1.6",
            "s1.00",
            "s1.7ff0000000000000",
            "s1.bfc0000000000000",
            "s1.3FC0000000000000",
            "l1.6A",
            "n",
            "1000000000000000000",
        ] {
            assert!(bad.parse::<PageCursor>().is_err(), "{bad}");
        }
    }
}
