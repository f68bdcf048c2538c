use std::borrow::Cow;

use http::{
    HeaderMap, HeaderValue, Request,
    header::{AUTHORIZATION, HeaderName},
};

use super::{AuthRejection, MalformedCredential};
use crate::{copies, key::SecretKey};

/// The headers that carry a key besides `Authorization`.
static KEY_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-trial-key"), HeaderName::from_static("x-api-key")];

/// Quotes and brackets that people copy along with a key, or that shells leave around it.
const DELIMITERS: [(char, char); 9] = [
    ('"', '"'),
    ('\'', '\''),
    ('`', '`'),
    ('<', '>'),
    ('[', ']'),
    ('{', '}'),
    ('(', ')'),
    ('“', '”'),
    ('‘', '’'),
];

/// Removes the credential from the request, with every copy of it in other headers and in the query,
/// and returns it.
pub(super) fn take<B>(request: &mut Request<B>) -> Result<SecretKey, AuthRejection> {
    let headers = request.headers_mut();
    let key = find(headers);
    headers.remove(AUTHORIZATION);
    for name in &KEY_HEADERS {
        headers.remove(name);
    }
    if let Ok(key) = &key {
        let credential = key.expose().as_bytes();
        copies::remove_from_headers(headers, credential);
        if let Some(uri) = copies::without_pairs(request.uri(), credential) {
            *request.uri_mut() = uri;
        }
    }
    key
}

/// Returns the one credential of the request. An `Authorization` with another scheme is ignored if a
/// key is sent in another header.
fn find(headers: &HeaderMap) -> Result<SecretKey, AuthRejection> {
    let authorization = headers.get_all(AUTHORIZATION).iter().map(from_authorization);
    let key_headers = KEY_HEADERS.iter().flat_map(|name| headers.get_all(name));
    let key_headers = key_headers.map(|value| Ok(slice(text(value), trim)));
    let mut key: Option<Cow<'_, str>> = None;
    let mut rejection = AuthRejection::MissingKey;
    for credential in authorization.chain(key_headers) {
        match credential {
            Ok(text) if text.is_empty() => {}
            Ok(text) if key.as_ref().is_some_and(|key| *key != text) => {
                return Err(AuthRejection::ConflictingKeys);
            }
            Ok(text) => key = Some(text),
            Err(malformed) => rejection = malformed.into(),
        }
    }
    let key = key.ok_or(rejection)?;
    SecretKey::parse(&key).map_err(|_| MalformedCredential::of_key(&key).into())
}

/// Returns what follows `Bearer` in an `Authorization` header (RFC 6750, section 2.1; the scheme in any
/// case).
fn from_authorization(value: &HeaderValue) -> Result<Cow<'_, str>, MalformedCredential> {
    let value = slice(text(value), trim);
    let scheme_end = value.find(char::is_whitespace).unwrap_or(value.len());
    if value[..scheme_end].eq_ignore_ascii_case("bearer") {
        let key = slice(value, |value| trim(&value[scheme_end..]));
        return if key.is_empty() { Err(MalformedCredential::NoKey) } else { Ok(key) };
    }
    match value.len() {
        0 => Ok(value),
        length if length == scheme_end => Err(MalformedCredential::NoScheme),
        _ => Err(MalformedCredential::OtherScheme),
    }
}

fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// Applies a function that returns a part of its text, without a copy of borrowed text.
fn slice(text: Cow<'_, str>, part: impl for<'a> Fn(&'a str) -> &'a str) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(part(text)),
        Cow::Owned(text) => Cow::Owned(part(&text).to_owned()),
    }
}

/// Trims white space, quotes and brackets.
fn trim(text: &str) -> &str {
    let text = text.trim();
    let inside = DELIMITERS
        .iter()
        .find_map(|(opening, closing)| text.strip_prefix(*opening)?.strip_suffix(*closing));
    inside.map_or(text, trim)
}

impl MalformedCredential {
    /// Returns what is wrong with a text that cannot be a key.
    fn of_key(text: &str) -> Self {
        let scheme = text.get(.."bearer".len()).unwrap_or_default();
        if scheme.eq_ignore_ascii_case("bearer") && text.contains(char::is_whitespace) {
            return Self::DoubledScheme;
        }
        match text.chars().find(|letter| !letter.is_ascii_graphic()) {
            None => Self::TooLong,
            Some('…' | '•') => Self::Masked,
            Some('\u{ff01}'..='\u{ff5e}') => Self::FullWidth,
            Some(letter) if letter.is_whitespace() || letter.is_control() => Self::Space,
            Some(
                '\u{ad}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}',
            ) => Self::Invisible,
            Some(_) => Self::NotAscii,
        }
    }
}
