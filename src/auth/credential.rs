use std::borrow::Cow;

use http::{
    HeaderMap, HeaderValue, Request,
    header::{AUTHORIZATION, HeaderName},
};

use super::{AuthRejection, MalformedCredential};
use crate::{copies, key::SecretKey};

/// The headers that carry a key, beside `Authorization`.
static KEY_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-trial-key"), HeaderName::from_static("x-api-key")];

/// What people write around a key that they copy, and shells leave there.
const WRAPPINGS: [(char, char); 9] = [
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

/// Takes the one credential out of the request; none stays behind, nor a copy of it in another header
/// or in the query.
pub(super) fn take<B>(request: &mut Request<B>) -> Result<SecretKey, AuthRejection> {
    let headers = request.headers_mut();
    let found = find(headers);
    headers.remove(AUTHORIZATION);
    for name in &KEY_HEADERS {
        headers.remove(name);
    }
    if let Ok(key) = &found {
        let key = key.expose().as_bytes();
        copies::remove_from_headers(headers, key);
        if let Some(uri) = copies::without_pairs(request.uri(), key) {
            *request.uri_mut() = uri;
        }
    }
    found
}

/// The one credential. Another scheme than `Bearer` is somebody else's, where a key is sent, too.
fn find(headers: &HeaderMap) -> Result<SecretKey, AuthRejection> {
    let authorization = headers.get_all(AUTHORIZATION).iter().map(in_authorization);
    let plain = KEY_HEADERS.iter().flat_map(|name| headers.get_all(name));
    let plain = plain.map(|value| Ok(cut(text(value), unwrapped)));
    let mut key: Option<Cow<'_, str>> = None;
    let mut without_key = AuthRejection::MissingKey;
    for presented in authorization.chain(plain) {
        match presented {
            Ok(text) if text.is_empty() => {}
            Ok(text) if key.as_ref().is_some_and(|key| *key != text) => {
                return Err(AuthRejection::ConflictingKeys);
            }
            Ok(text) => key = Some(text),
            Err(malformed) => without_key = malformed.into(),
        }
    }
    let key = key.ok_or(without_key)?;
    SecretKey::parse(&key).map_err(|_| MalformedCredential::of_key(&key).into())
}

/// The credential of an `Authorization` line: what follows `Bearer` (RFC 6750, section 2.1; the scheme
/// in any case).
fn in_authorization(value: &HeaderValue) -> Result<Cow<'_, str>, MalformedCredential> {
    let value = cut(text(value), unwrapped);
    let scheme_end = value.find(char::is_whitespace).unwrap_or(value.len());
    if value[..scheme_end].eq_ignore_ascii_case("bearer") {
        let key = cut(value, |value| unwrapped(&value[scheme_end..]));
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

/// A part of the text.
fn cut(text: Cow<'_, str>, part: impl for<'a> Fn(&'a str) -> &'a str) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(part(text)),
        Cow::Owned(text) => Cow::Owned(part(&text).to_owned()),
    }
}

/// The text without the white space, quotes and brackets around it.
fn unwrapped(text: &str) -> &str {
    let text = text.trim();
    let inside = WRAPPINGS
        .iter()
        .find_map(|(opening, closing)| text.strip_prefix(*opening)?.strip_suffix(*closing));
    inside.map_or(text, unwrapped)
}

impl MalformedCredential {
    /// What is wrong with a text that can be no key.
    fn of_key(text: &str) -> Self {
        let scheme = text.get(.."bearer".len()).unwrap_or_default();
        if scheme.eq_ignore_ascii_case("bearer") && text.contains(char::is_whitespace) {
            return Self::DoubledScheme;
        }
        let odd = text.chars().find(|letter| !letter.is_ascii_graphic());
        match odd {
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
