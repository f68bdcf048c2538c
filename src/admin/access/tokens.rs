use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::key::{bearer, hex};

/// Minimum length of a token.
const MIN_LEN: usize = 16;
/// Beginnings of placeholder tokens in documents and templates, without punctuation.
const PLACEHOLDERS: [&str; 8] = [
    "yourstrong",
    "youradmin",
    "yoursecret",
    "yourtoken",
    "changeme",
    "changethis",
    "replaceme",
    "placeholder",
];

/// The tokens of the admin API. There can be several, so that both work while one is replaced.
///
/// Clones share the tokens, so that they can be replaced while the service runs. Only their SHA-256
/// is kept. `Debug` shows their number.
///
/// ```
/// use tower_quota::admin::AdminTokens;
///
/// let tokens = AdminTokens::parse("correct-horse-battery-staple, the-one-before-it-2025")?;
/// assert!(AdminTokens::parse("your-strong-admin-token-here").is_err());
/// # Ok::<(), tower_quota::admin::InvalidAdminToken>(())
/// ```
#[derive(Clone)]
pub struct AdminTokens(Arc<ArcSwap<Vec<[u8; 32]>>>);

/// Why a text is not an admin token. It does not contain the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidAdminToken {
    /// The token is empty.
    Empty,
    /// The token is shorter than 16 characters.
    TooShort,
    /// The token contains a space, a control character or another one that is not visible ASCII.
    NotVisibleAscii,
    /// The token is a placeholder from a document or a template.
    Placeholder,
}

impl AdminTokens {
    /// Parses a comma-separated list.
    ///
    /// # Errors
    ///
    /// When a token of the list is empty, too short, not visible ASCII, or a known placeholder.
    pub fn parse(list: &str) -> Result<Self, InvalidAdminToken> {
        let hashes: Result<Vec<_>, _> = list.split(',').map(|token| check(token.trim())).collect();
        hashes.map(Self::of)
    }

    fn of(hashes: Vec<[u8; 32]>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(hashes)))
    }

    /// Replaces these tokens with those of `others`, in all clones.
    pub fn replace(&self, others: &Self) {
        self.0.store(others.0.load_full());
    }

    /// Generates a random token of 256 bits, and returns it with the text to show to the operator.
    ///
    /// # Panics
    ///
    /// If the operating system provides no random bytes.
    pub fn generate() -> (Self, String) {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        let token = hex(&bytes);
        (Self::of(vec![hash(token.as_bytes())]), token)
    }

    /// Returns the ids of the tokens, as the audit trail shows them: the first 8 hex digits of each
    /// one's SHA-256.
    pub fn ids(&self) -> Vec<String> {
        self.0.load().iter().map(id).collect()
    }

    /// Returns the id of the token in these headers (`Authorization: Bearer` or `x-admin-token`), if
    /// it is one of these tokens: the first 8 hex digits of its SHA-256. Two different tokens in one
    /// request are not accepted.
    ///
    /// Takes the same time for valid and invalid tokens.
    pub fn verify(&self, headers: &HeaderMap) -> Option<String> {
        let presented = hash(presented(headers)?);
        let tokens = self.0.load();
        let known =
            tokens.iter().fold(Choice::from(0), |known, token| known | token.ct_eq(&presented));
        bool::from(known).then(|| id(&presented))
    }
}

fn id(token: &[u8; 32]) -> String {
    hex(&token[..4])
}

/// The token of a request, unless it has several. Other `Authorization` schemes are ignored.
pub(crate) fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer =
        headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| bearer(value.as_bytes()));
    let plain = headers.get_all("x-admin-token").iter().map(|value| value.as_bytes().trim_ascii());
    let mut tokens = bearer.chain(plain);
    let first = tokens.next()?;
    tokens.all(|token| token == first).then_some(first)
}

fn check(token: &str) -> Result<[u8; 32], InvalidAdminToken> {
    if token.is_empty() {
        return Err(InvalidAdminToken::Empty);
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(InvalidAdminToken::NotVisibleAscii);
    }
    if is_placeholder(token) {
        return Err(InvalidAdminToken::Placeholder);
    }
    if token.len() < MIN_LEN {
        return Err(InvalidAdminToken::TooShort);
    }
    Ok(hash(token.as_bytes()))
}

fn is_placeholder(token: &str) -> bool {
    let plain: String = token
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    let first = token.as_bytes()[0];
    PLACEHOLDERS.iter().any(|start| plain.starts_with(start))
        || (plain.starts_with("your") && plain.ends_with("here"))
        || token.bytes().all(|byte| byte == first)
}

fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl fmt::Debug for AdminTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdminTokens({})", self.0.load().len())
    }
}

impl fmt::Display for InvalidAdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an admin token must not be empty",
            Self::TooShort => "an admin token must have at least 16 characters",
            Self::NotVisibleAscii => {
                "an admin token must be visible ASCII, without spaces; a comma separates two"
            }
            Self::Placeholder => {
                "this admin token is a placeholder; choose a random one, for example with \
                 `openssl rand -hex 24`"
            }
        })
    }
}

impl std::error::Error for InvalidAdminToken {}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "correct-horse-battery-staple";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn invalid_tokens_are_rejected_with_the_reason() {
        for (text, reason) in [
            ("", InvalidAdminToken::Empty),
            ("correct-horse-battery-staple,", InvalidAdminToken::Empty),
            ("short", InvalidAdminToken::TooShort),
            ("fifteen-letters", InvalidAdminToken::TooShort),
            ("two words are not one token", InvalidAdminToken::NotVisibleAscii),
            ("你的管理员令牌", InvalidAdminToken::NotVisibleAscii),
            ("your-strong-admin-token-here", InvalidAdminToken::Placeholder),
            ("YOUR_TOKEN_GOES_HERE", InvalidAdminToken::Placeholder),
            ("changeme", InvalidAdminToken::Placeholder),
            ("Change-Me-Please-12345", InvalidAdminToken::Placeholder),
            ("0000000000000000", InvalidAdminToken::Placeholder),
        ] {
            assert_eq!(AdminTokens::parse(text).unwrap_err(), reason, "{text}");
        }
    }

    #[test]
    fn a_token_is_accepted_in_either_header() {
        let tokens = AdminTokens::parse(&format!("{GOOD},another-token-of-16")).unwrap();
        let id = tokens.verify(&headers(&[("x-admin-token", GOOD)])).unwrap();
        assert_eq!(id.len(), 8);
        for lines in [
            vec![("authorization", "Bearer correct-horse-battery-staple")],
            vec![("authorization", "bearer  correct-horse-battery-staple ")],
            vec![("authorization", "Basic eA=="), ("x-admin-token", GOOD)],
        ] {
            assert_eq!(tokens.verify(&headers(&lines)).as_ref(), Some(&id));
        }
        for lines in [
            vec![],
            vec![("authorization", GOOD)],
            vec![("authorization", "Bearer ")],
            vec![("authorization", "Bearer correct-horse-battery-stapl")],
            vec![("x-admin-token", GOOD), ("x-admin-token", "another-token-of-16")],
        ] {
            assert_eq!(tokens.verify(&headers(&lines)), None);
        }
    }

    #[test]
    fn tokens_are_replaced_in_all_clones() {
        let tokens = AdminTokens::parse(GOOD).unwrap();
        let clone = tokens.clone();
        tokens.replace(&AdminTokens::parse("another-token-of-16").unwrap());
        assert!(clone.verify(&headers(&[("x-admin-token", GOOD)])).is_none());
        assert!(clone.verify(&headers(&[("x-admin-token", "another-token-of-16")])).is_some());
    }

    #[test]
    fn a_generated_token_is_accepted() {
        let (tokens, text) = AdminTokens::generate();
        assert!(tokens.verify(&headers(&[("x-admin-token", &text)])).is_some());
        assert!(AdminTokens::parse(&text).is_ok());
        assert_eq!(format!("{tokens:?}"), "AdminTokens(1)");
    }
}
