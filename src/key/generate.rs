use std::fmt;

use sha2::{Digest, Sha256};

use super::{KeyId, SecretKey};
use crate::clock::Day;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 22 characters of base 62 carry 130.9 bits.
const RANDOM: usize = 22;
/// 4 characters of base 62: one typo in 14.7 million passes.
const CHECK: usize = 4;
const LONGEST_USER: usize = 32;

/// What a key's checksum tells without a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The key has the generated form and its checksum holds.
    Valid,
    /// The key has the generated form, but its checksum does not hold: most likely a typo.
    Mistyped,
    /// The key was chosen by hand and has no checksum.
    Absent,
}

/// The `user` part of a key's name must be 1 to 32 ASCII letters and digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUser;

impl SecretKey {
    /// A new key `trial-{user}-{yyyymmdd}-{random}` with 130 bits of randomness and a checksum in
    /// its last four characters.
    pub fn generate(user: &str, day: Day) -> Result<Self, InvalidUser> {
        let valid = user.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if user.is_empty() || user.len() > LONGEST_USER || !valid {
            return Err(InvalidUser);
        }
        let mut text = format!("trial-{user}-{}-", day.compact());
        push_random(&mut text, RANDOM);
        let check = checksum(&text);
        text.push_str(&check);
        Ok(Self::generated(text))
    }

    /// Tells a mistyped generated key from one that is unknown or was chosen by hand.
    pub fn checksum(&self) -> Checksum {
        let text = self.expose();
        if !has_generated_form(text) {
            return Checksum::Absent;
        }
        let (body, check) = text.split_at(text.len() - CHECK);
        if checksum(body) == check { Checksum::Valid } else { Checksum::Mistyped }
    }
}

impl KeyId {
    /// A new random id, for example `key_6b1f0c9a72d4e835`.
    pub fn generate() -> Self {
        let mut bytes = [0; 8];
        fill(&mut bytes);
        Self::new(format!("key_{:016x}", u64::from_be_bytes(bytes)))
    }
}

/// The `{user}` part that a label yields: its ASCII letters and digits without the dates in it (at
/// most 32), or `key`. The day of issue stands in the key's name already.
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
        let number = &rest[..digits(rest)];
        let length = match date_length(rest) {
            Some(length) => length,
            None => {
                let text = if number.is_empty() { &rest[..letter.len_utf8()] } else { number };
                user.extend(text.chars().filter(char::is_ascii_alphanumeric));
                text.len()
            }
        };
        rest = &rest[length..];
    }
    user.truncate(LONGEST_USER);
    if user.is_empty() { "key".to_owned() } else { user }
}

/// How long the date is that the text begins with, if it does: `20250211`, or year, month and day (or
/// day, month and year) with a separator between.
fn date_length(text: &str) -> Option<usize> {
    let first = &text[..digits(text)];
    if let (8, Some((year, rest))) = (first.len(), first.split_at_checked(4)) {
        return is_date(year, &rest[..2], &rest[2..]).then_some(first.len());
    }
    let (second, behind_second) = next_number(&text[first.len()..])?;
    let (third, behind_third) = next_number(behind_second)?;
    let is_date = match (first.len(), third.len()) {
        (4, 1..=2) => is_date(first, second, third),
        (1..=2, 4) => is_date(third, second, first) || is_date(third, first, second),
        _ => false,
    };
    let behind = behind_third.strip_prefix(['日', '号']).unwrap_or(behind_third);
    is_date.then_some(text.len() - behind.len())
}

/// The number behind a separator of dates, and what follows it.
fn next_number(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix(['-', '.', '/', '_', ' ', '年', '月'])?;
    Some(text.split_at(digits(text)))
}

fn is_date(year: &str, month: &str, day: &str) -> bool {
    let is_in = |text: &str, range: std::ops::RangeInclusive<u16>| {
        text.parse().is_ok_and(|number| range.contains(&number))
    };
    is_in(year, 1900..=2099) && is_in(month, 1..=12) && is_in(day, 1..=31)
}

/// How many digits the text begins with.
fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn has_generated_form(text: &str) -> bool {
    let words: Vec<&str> = text.split('-').collect();
    let [trial, user, day, random] = words[..] else {
        return false;
    };
    trial == "trial"
        && !user.is_empty()
        && day.len() == 8
        && day.bytes().all(|byte| byte.is_ascii_digit())
        && random.len() == RANDOM + CHECK
        && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn checksum(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let mut check = String::with_capacity(CHECK);
    for _ in 0..CHECK {
        check.push(char::from(BASE62[(number % 62) as usize]));
        number /= 62;
    }
    check
}

pub(super) fn push_random(text: &mut String, count: usize) {
    let end = text.len() + count;
    while text.len() < end {
        let mut bytes = [0; 32];
        fill(&mut bytes);
        // Bytes from 248 on would make some characters likelier than others.
        for byte in bytes.into_iter().filter(|byte| *byte < 248) {
            if text.len() < end {
                text.push(char::from(BASE62[usize::from(byte % 62)]));
            }
        }
    }
}

/// A machine without a source of randomness cannot issue keys, and must not issue weak ones.
fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

impl fmt::Display for InvalidUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("1 to 32 ASCII letters and digits are needed")
    }
}

impl std::error::Error for InvalidUser {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_single_typo_in_a_generated_key_is_told_without_a_look_up() {
        let key = SecretKey::generate("alice", "2026-11-22".parse().unwrap()).unwrap();
        assert!(key.expose().starts_with("trial-alice-20261122-"));
        assert_eq!(key.checksum(), Checksum::Valid);
        let text = key.expose();
        for at in text.len() - RANDOM - CHECK..text.len() {
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
    fn labels_yield_the_user_part() {
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
        assert_eq!(user_from_label(&"x".repeat(40)).len(), LONGEST_USER);
    }

    #[test]
    fn a_date_in_a_label_is_none_of_the_user() {
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
