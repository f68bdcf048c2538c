//! Copies of a credential: what was presented as one must not travel on elsewhere in the request.

use std::borrow::Cow;

use http::{HeaderMap, Uri, header::HeaderName, uri::PathAndQuery};
use memchr::memmem;

/// A shorter credential is found only where it stands alone: it may be part of many a value.
const MIN_LENGTH: usize = 8;

/// Removes every header whose value holds this credential.
pub(crate) fn remove_from_headers(headers: &mut HeaderMap, credential: &[u8]) {
    let holds = |value: &[u8]| holds(value, credential);
    let names: Vec<HeaderName> = headers
        .iter()
        .filter(|(_, value)| holds(value.as_bytes()))
        .map(|(name, _)| name.clone())
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// The address without the pairs of its query that hold this credential; `None` if there are none.
pub(crate) fn without_pairs(uri: &Uri, credential: &[u8]) -> Option<Uri> {
    let (path, query) = (uri.path(), uri.query()?);
    if query.len() < credential.len() {
        return None;
    }
    let pairs = || query.split('&');
    let stays = |pair: &&str| !holds(&decoded(pair), credential);
    if pairs().all(|pair| stays(&pair)) {
        return None;
    }
    let left: Vec<&str> = pairs().filter(stays).collect();
    let path_and_query = match left.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", left.join("&")),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).ok()?);
    Uri::from_parts(parts).ok()
}

/// Most values are shorter than a key, and cost no search.
fn holds(text: &[u8], credential: &[u8]) -> bool {
    if text.len() < credential.len() || credential.is_empty() {
        return false;
    }
    if credential.len() < MIN_LENGTH {
        let words = text.split(|byte| matches!(byte, b' ' | b'=' | b'\t'));
        return words.into_iter().any(|word| word == credential);
    }
    memmem::find(text, credential).is_some()
}

/// A pair with its percent escapes decoded.
fn decoded(pair: &str) -> Cow<'_, [u8]> {
    let bytes = pair.as_bytes();
    if !bytes.contains(&b'%') {
        return bytes.into();
    }
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = match rest {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                text.push(high << 4 | low);
                rest = &rest[3..];
            }
            None => {
                text.push(byte);
                rest = after;
            }
        }
    }
    text.into()
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
    fn headers_that_hold_it_go() {
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
        assert_eq!(headers.len(), 1, "a short one is looked for as a word");
    }

    #[test]
    fn pairs_of_the_query_that_hold_it_go() {
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
