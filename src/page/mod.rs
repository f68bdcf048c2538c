//! Shared parts of the pages: style, script, and the response. A page is one embedded file that loads
//! nothing else. It holds no data, so it needs no credential.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use sha2::{Digest, Sha256};

/// Placeholder for the style in a page's HTML.
const STYLE: &str = "{{style}}";
/// Placeholder for the script in a page's HTML.
const SCRIPT: &str = "{{script}}";

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A page and its content security policy.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    html: Bytes,
    policy: HeaderValue,
}

impl Page {
    /// Inserts style and script into the page. The policy lets nothing else run. The script's files
    /// share a scope, and the last one starts the page.
    pub(crate) fn new(html: &str, style: &str, script: &str) -> Self {
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'",
            source_hash(script),
            source_hash(style)
        );
        Self {
            html: html.replace(STYLE, style).replace(SCRIPT, script).into(),
            // The hashes are base64, which any header may hold.
            policy: HeaderValue::try_from(policy)
                .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'")),
        }
    }

    /// Returns the page as a response.
    pub(crate) fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.html.clone());
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_FRAME_OPTIONS, "DENY"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        response
    }
}

/// Returns `sha256-…` of an inline element's text, for a content security policy.
fn source_hash(text: &str) -> String {
    let mut hash = "sha256-".to_owned();
    for bytes in Sha256::digest(text.as_bytes()).chunks(3) {
        let [first, rest @ ..] = bytes else { continue };
        let second = rest.first().copied().unwrap_or_default();
        let third = rest.get(1).copied().unwrap_or_default();
        let number = u32::from_be_bytes([0, *first, second, third]);
        for index in 0..4 {
            let six_bits = (number >> (18 - 6 * index)) & 63;
            let digit = char::from(BASE64[six_bits as usize]);
            hash.push(if index <= bytes.len() { digit } else { '=' });
        }
    }
    hash
}

/// Panics unless the page contains its style and script unchanged. If one contained a closing tag,
/// the element would end early and not match its hash.
#[cfg(test)]
pub(crate) fn assert_complete(page: &Page, style: &str, script: &str) {
    let html = std::str::from_utf8(&page.html).unwrap();
    assert!(!html.contains("{{"));
    assert!(html.contains(script) && html.contains(style));
    assert_eq!((script.find("</"), style.find("</")), (None, None));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_hash_is_base64_of_sha_256() {
        assert_eq!(source_hash(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }
}
