use std::fmt;

use sha2::{Digest, Sha256};

use super::{KeyId, SecretKey};
use crate::clock::Day;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Length of the random part. 22 characters of base 62 carry 130.9 bits.
const RANDOM_LENGTH: usize = 22;
/// Length of the checksum. With 4 characters of base 62, one typo in 14.7 million goes undetected.
const CHECKSUM_LENGTH: usize = 4;
/// Maximum length of the `{user}` part.
const MAX_USER_LENGTH: usize = 32;

/// Result of verifying the checksum of a key, which needs no look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The key has the generated form and its checksum matches.
    Valid,
    /// The key has the generated form, but its checksum does not match: most likely a typo.
    Mistyped,
    /// The key does not have the generated form, so it was chosen by hand and has no checksum.
    Absent,
}

/// Error for a `{user}` part that is not 1 to 32 ASCII letters and digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidUser;

impl SecretKey {
    /// Generates a key `trial-{user}-{yyyymmdd}-{random}` with 130 bits of randomness and a
    /// checksum in its last four characters.
    ///
    /// # Errors
    ///
    /// `user` is not 1–32 ASCII letters and digits.
    ///
    /// # Panics
    ///
    /// If the operating system provides no random bytes.
    pub fn generate(user: &str, day: Day) -> Result<Self, InvalidUser> {
        let is_alphanumeric = user.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if user.is_empty() || user.len() > MAX_USER_LENGTH || !is_alphanumeric {
            return Err(InvalidUser);
        }
        let mut text = format!("trial-{user}-{}-", day.compact());
        push_random(&mut text, RANDOM_LENGTH);
        let checksum = checksum_of(&text);
        text.push_str(&checksum);
        Ok(Self::new_unchecked(&text))
    }

    /// Verifies the checksum of a generated key, which distinguishes a typo from an unknown key.
    pub fn checksum(&self) -> Checksum {
        let text = self.expose();
        if !has_generated_form(text) {
            return Checksum::Absent;
        }
        let (body, checksum) = text.split_at(text.len() - CHECKSUM_LENGTH);
        if checksum_of(body) == checksum { Checksum::Valid } else { Checksum::Mistyped }
    }
}

impl KeyId {
    /// Generates a random id, for example `key_6b1f0c9a72d4e835`.
    pub fn generate() -> Self {
        let mut bytes = [0; 8];
        fill(&mut bytes);
        Self::new(format!("key_{:016x}", u64::from_be_bytes(bytes)))
    }
}

/// Derives the `{user}` part of a key from a label.
///
/// Returns the first 32 ASCII letters and digits of the label, or `key` if there are none. Dates in
/// the label are left out, since the key contains its day of issue anyway.
///
/// ```
/// use tower_quota::key::user_from_label;
///
/// assert_eq!(user_from_label("docker-user-20250211"), "dockeruser");
/// assert_eq!(user_from_label("用户A-2025-02-10"), "A");
/// ```
pub fn user_from_label(label: &str) -> String {
    let mut user = String::new();
    let mut rest = label;
    while let Some(letter) = rest.chars().next() {
        let length = match date_length(rest) {
            Some(length) => length,
            None => {
                // A number is taken whole, so that no date is found within it.
                let text = &rest[..count_digits(rest).max(letter.len_utf8())];
                user.extend(text.chars().filter(char::is_ascii_alphanumeric));
                text.len()
            }
        };
        rest = &rest[length..];
    }
    user.truncate(MAX_USER_LENGTH);
    if user.is_empty() { "key".to_owned() } else { user }
}

/// Returns the length of the date at the beginning of the text, if there is one: `20250211`, or
/// year, month and day (or day, month and year) with separators.
fn date_length(text: &str) -> Option<usize> {
    let first = &text[..count_digits(text)];
    if let (8, Some((year, rest))) = (first.len(), first.split_at_checked(4)) {
        return is_date(year, &rest[..2], &rest[2..]).then_some(first.len());
    }
    let (second, rest) = next_number(&text[first.len()..])?;
    let (third, rest) = next_number(rest)?;
    let is_date = match (first.len(), third.len()) {
        (4, 1..=2) => is_date(first, second, third),
        (1..=2, 4) => is_date(third, second, first) || is_date(third, first, second),
        _ => false,
    };
    let rest = rest.strip_prefix(['日', '号']).unwrap_or(rest);
    is_date.then_some(text.len() - rest.len())
}

/// Splits a date separator and the number after it from the text; returns the number and the rest.
fn next_number(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix(['-', '.', '/', '_', ' ', '年', '月'])?;
    Some(text.split_at(count_digits(text)))
}

fn is_date(year: &str, month: &str, day: &str) -> bool {
    let is_in = |text: &str, range: std::ops::RangeInclusive<u16>| {
        text.parse().is_ok_and(|number| range.contains(&number))
    };
    is_in(year, 1900..=2099) && is_in(month, 1..=12) && is_in(day, 1..=31)
}

/// Number of digits at the beginning of the text.
fn count_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn has_generated_form(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [trial, user, day, random] = parts[..] else {
        return false;
    };
    trial == "trial"
        && !user.is_empty()
        && day.len() == 8
        && day.bytes().all(|byte| byte.is_ascii_digit())
        && random.len() == RANDOM_LENGTH + CHECKSUM_LENGTH
        && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn checksum_of(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let mut checksum = String::with_capacity(CHECKSUM_LENGTH);
    for _ in 0..CHECKSUM_LENGTH {
        checksum.push(char::from(BASE62[(number % 62) as usize]));
        number /= 62;
    }
    checksum
}

pub(super) fn push_random(text: &mut String, count: usize) {
    let end = text.len() + count;
    while text.len() < end {
        let mut bytes = [0; 32];
        fill(&mut bytes);
        // 248 is the largest multiple of 62: larger bytes would favour some characters.
        for byte in bytes.into_iter().filter(|byte| *byte < 248) {
            if text.len() < end {
                text.push(char::from(BASE62[usize::from(byte % 62)]));
            }
        }
    }
}

/// Fills the buffer with random bytes. Panics if the system has none, rather than issue a weak key.
fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system provides random bytes");
}

impl fmt::Display for InvalidUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 1 to 32 ASCII letters and digits")
    }
}

impl std::error::Error for InvalidUser {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_detects_every_single_typo_in_a_generated_key() {
        let key = SecretKey::generate("alice", "2026-11-22".parse().unwrap()).unwrap();
        assert!(key.expose().starts_with("trial-alice-20261122-"));
        assert_eq!(key.checksum(), Checksum::Valid);
        let text = key.expose();
        for at in text.len() - RANDOM_LENGTH - CHECKSUM_LENGTH..text.len() {
            let typo = if text.as_bytes()[at] == b'x' { "y" } else { "x" };
            let mut mistyped = text.to_owned();
            mistyped.replace_range(at..=at, typo);
            assert_eq!(SecretKey::parse(&mistyped).unwrap().checksum(), Checksum::Mistyped);
        }
    }

    #[test]
    fn a_key_chosen_by_hand_has_no_checksum() {
        for text in ["trial-key-manual-123", "trial-alice-20250210-abc123", "x"] {
            assert_eq!(SecretKey::parse(text).unwrap().checksum(), Checksum::Absent);
        }
    }

    #[test]
    fn the_user_part_is_derived_from_the_label() {
        for (label, user) in [
            ("用户A的试用密钥", "A"),
            ("手动创建的密钥", "key"),
            ("k8s-user", "k8suser"),
            ("workshop-01", "workshop01"),
            ("13800138000", "13800138000"),
            ("room 12345678", "room12345678"),
            ("v1.2.3", "v123"),
            ("a-1-2-2025x", "ax"),
        ] {
            assert_eq!(user_from_label(label), user, "{label}");
        }
        assert_eq!(user_from_label(&"x".repeat(40)).len(), MAX_USER_LENGTH);
    }

    #[test]
    fn a_date_in_a_label_is_left_out_of_the_user_part() {
        for (label, user) in [
            ("alice-20250210", "alice"),
            ("alice20250210", "alice"),
            ("用户A-2025-02-10", "A"),
            ("docker-user-20250211", "dockeruser"),
            ("生产用户-20250211", "key"),
            ("2025/2/10 bob", "bob"),
            ("bob 10.02.2025", "bob"),
            ("bob_2025_02_10_2", "bob2"),
            ("2025年2月10日 小明x", "x"),
            ("20250210", "key"),
            ("a-20251301", "a20251301"),
        ] {
            assert_eq!(user_from_label(label), user, "{label}");
        }
    }
}
