use http::{
    HeaderMap,
    header::{AUTHORIZATION, HeaderName},
};

use super::AuthRejection;
use crate::key::{SecretKey, bearer};

/// The headers that carry a key, beside `Authorization`.
static KEY_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-trial-key"), HeaderName::from_static("x-api-key")];

/// Takes the one credential out of the headers; none stays behind.
pub(super) fn take(headers: &mut HeaderMap) -> Result<SecretKey, AuthRejection> {
    let found = find(headers);
    headers.remove(AUTHORIZATION);
    for name in &KEY_HEADERS {
        headers.remove(name);
    }
    found
}

/// The one credential. Other schemes than `Bearer`, and empty values, are none.
fn find(headers: &HeaderMap) -> Result<SecretKey, AuthRejection> {
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| bearer(value.as_bytes()));
    let plain = KEY_HEADERS
        .iter()
        .flat_map(|name| headers.get_all(name))
        .map(|value| value.as_bytes().trim_ascii());
    let mut credentials = bearer.chain(plain).filter(|text| !text.is_empty());
    let text = credentials.next().ok_or(AuthRejection::MissingKey)?;
    if credentials.any(|other| other != text) {
        return Err(AuthRejection::ConflictingKeys);
    }
    let text = std::str::from_utf8(text).map_err(|_| AuthRejection::InvalidKey)?;
    SecretKey::parse(text).map_err(|_| AuthRejection::InvalidKey)
}
