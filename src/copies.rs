//! Removes copies of a credential from other parts of a request.

use std::borrow::Cow;

use http::{HeaderMap, Uri, header::HeaderName, uri::PathAndQuery};
use memchr::memmem;

/// Minimum length of a credential that is also found within words. A shorter one may be part of any
/// value by chance.
const MIN_LENGTH: usize = 8;

/// Removes every header whose value contains this credential.
pub(crate) fn remove_from_headers(headers: &mut HeaderMap, credential: &[u8]) {
    let names: Vec<HeaderName> = headers
        .iter()
        .filter(|(_, value)| contains(value.as_bytes(), credential))
        .map(|(name, _)| name.clone())
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// Returns the URI without the query pairs that contain this credential, or `None` if no pair does.
pub(crate) fn without_pairs(uri: &Uri, credential: &[u8]) -> Option<Uri> {
    let (path, query) = (uri.path(), uri.query()?);
    if query.len() < credential.len() {
        return None;
    }
    let pairs = || query.split('&');
    let is_kept = |pair: &&str| !contains(&decode(pair), credential);
    if pairs().all(|pair| is_kept(&pair)) {
        return None;
    }
    let kept: Vec<&str> = pairs().filter(is_kept).collect();
    let path_and_query = match kept.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", kept.join("&")),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).ok()?);
    Uri::from_parts(parts).ok()
}

fn contains(text: &[u8], credential: &[u8]) -> bool {
    // Most values are shorter than a key and need no search.
    if text.len() < credential.len() || credential.is_empty() {
        return false;
    }
    if credential.len() < MIN_LENGTH {
        let words = text.split(|byte| matches!(byte, b' ' | b'=' | b'\t'));
        return words.into_iter().any(|word| word == credential);
    }
    memmem::find(text, credential).is_some()
}

/// Decodes the percent escapes of a query pair.
fn decode(pair: &str) -> Cow<'_, [u8]> {
    let bytes = pair.as_bytes();
    if !bytes.contains(&b'%') {
        return bytes.into();
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = match rest {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = &rest[3..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    decoded.into()
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).and_then(|digit| digit.try_into().ok())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const KEY: &[u8] = b"trial-alice-0123456789";

    #[test]
    fn removes_headers_that_contain_the_credential() {
        let lines = [
            ("apikey", "trial-alice-0123456789"),
            ("x-note", "use trial-alice-0123456789 please"),
            ("x-other", "trial-alice-012345678"),
        ];
        let line = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut headers: HeaderMap = lines.map(line).into_iter().collect();
        remove_from_headers(&mut headers, KEY);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-other"]);
        remove_from_headers(&mut headers, b"alice");
        assert_eq!(headers.len(), 1, "a short credential matches only a whole word");
    }

    #[test]
    fn removes_query_pairs_that_contain_the_credential() {
        for (uri, expected) in [
            ("/v1/x?key=trial-alice-0123456789", "/v1/x"),
            ("/v1/x?a=1&key=trial-alice-0123456789&b=%20", "/v1/x?a=1&b=%20"),
            ("http://h/x?trial%2Dalice%2d0123456789&a", "http://h/x?a"),
        ] {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(without_pairs(&uri, KEY).unwrap(), expected);
        }
        for uri in ["/v1/x", "/v1/x?a=b", "/v1/x?key=trial-alice-012345678%", "/trial-alice?a=%zz"]
        {
            assert_eq!(without_pairs(&uri.parse().unwrap(), KEY), None, "{uri}");
        }
    }
}
