//! Pages of keys.

#[cfg(feature = "memory")]
use std::cmp::Ordering;
use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use super::{KeyState, KeySummary};
use crate::key::hex;

/// Which page of keys is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyPageQuery {
    /// At most so many keys.
    pub limit: usize,
    /// Where the page before ended: its [`KeyPage::next`].
    pub after: Option<PageCursor>,
    /// Only keys whose label, id or masked key holds this text, ASCII letters in any case; or the key
    /// of this text, or those whose SHA-256 begins with these hexadecimal digits, of which there must be eight.
    pub search: Option<String>,
    /// In which order.
    pub sort: KeySort,
    /// Only keys in this state.
    pub state: Option<KeyState>,
}

/// The order of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeySort {
    /// As they were issued.
    #[default]
    Issued,
    /// The latest first.
    Newest,
    /// By label, ASCII letters in any case alike.
    Label,
    /// Those first that have used most of their limit today. At the end, as they were issued, those
    /// that have used nothing, and those without a limit.
    NearestLimit,
}

impl KeySort {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Issued, Self::Newest, Self::Label, Self::NearestLimit];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Newest => "newest",
            Self::Label => "label",
            Self::NearestLimit => "nearest_limit",
        }
    }
}

/// One page of keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<KeySummary>,
    /// Where the next page begins, if there is one.
    pub next: Option<PageCursor>,
}

/// Where a page ended. Its text is made of letters, digits and dots.
#[derive(Clone, Debug, PartialEq)]
pub struct PageCursor(pub(crate) PagePosition);

/// Behind which key a page goes on, in one of the orders.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PagePosition {
    /// This number, as issued or the other way round.
    Number(u64),
    /// This label, as its bytes are stored, and number.
    Label(Vec<u8>, u64),
    /// This share of the limit and number.
    Share(f64, u64),
    /// This number, among those without a share.
    NoShare(u64),
}

#[cfg(feature = "memory")]
impl KeySummary {
    /// The key's place in this order.
    pub(crate) fn place(&self, sort: KeySort, number: u64) -> PagePosition {
        let limit = self.record.daily_limit.get();
        match sort {
            KeySort::Issued | KeySort::Newest => PagePosition::Number(number),
            KeySort::Label => PagePosition::Label(self.record.label.clone().into(), number),
            KeySort::NearestLimit if limit > 0 && self.used_today > 0 => {
                PagePosition::Share(self.used_today as f64 / f64::from(limit), number)
            }
            KeySort::NearestLimit => PagePosition::NoShare(number),
        }
    }
}

#[cfg(feature = "memory")]
impl PagePosition {
    /// Which of two places of the same order comes first.
    pub(crate) fn in_order(&self, other: &Self, sort: KeySort) -> Ordering {
        match (self, other) {
            (Self::Number(one), Self::Number(other)) if sort == KeySort::Newest => other.cmp(one),
            (Self::Number(one), Self::Number(other)) => one.cmp(other),
            (Self::Label(one, number), Self::Label(other, others)) => {
                let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
                one.cmp(&other).then(number.cmp(others))
            }
            (Self::Share(one, number), Self::Share(other, others)) => {
                other.total_cmp(one).then(number.cmp(others))
            }
            (Self::NoShare(one), Self::NoShare(other)) => one.cmp(other),
            (Self::Share(..), Self::NoShare(_)) => Ordering::Less,
            (Self::NoShare(_), Self::Share(..)) => Ordering::Greater,
            // A place of another order.
            _ => Ordering::Greater,
        }
    }
}

/// The text is no place where a page has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPageCursor;

impl PageCursor {
    /// Whether a page of this order can have ended here.
    pub fn fits(&self, sort: KeySort) -> bool {
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

/// As a number where it is one, else as a text.
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
        place(text).map(Self).ok_or(InvalidPageCursor)
    }
}

fn place(text: &str) -> Option<PagePosition> {
    let number = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        // Stores number rows with signed integers.
        let number: u64 = if plain { digits.parse().ok()? } else { return None };
        i64::try_from(number).is_ok().then_some(number)
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
        return share.is_finite().then_some(PagePosition::Share(share, number(digits)?));
    }
    number(text).map(PagePosition::Number)
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let plain =
        digits.len().is_multiple_of(2) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let two = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    if plain { (0..digits.len()).step_by(2).map(two).collect() } else { None }
}

impl fmt::Display for InvalidPageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the `next` of a page is needed")
    }
}

impl std::error::Error for InvalidPageCursor {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for place in [
            PagePosition::Number(7),
            PagePosition::Label("密钥 1".into(), 8),
            PagePosition::Share(0.125, 9),
            PagePosition::NoShare(10),
        ] {
            let cursor = PageCursor(place);
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
            "n",
            "9223372036854775808",
        ] {
            assert!(bad.parse::<PageCursor>().is_err(), "{bad}");
        }
    }
}
