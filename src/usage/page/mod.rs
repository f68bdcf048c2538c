//! The holder's page: one file, embedded, without any outside request.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use sha2::{Digest, Sha256};

const HTML: &str = include_str!("index.html");
const CSS: &str = concat!(
    include_str!("base.css"),
    include_str!("frame.css"),
    include_str!("today.css"),
    include_str!("chart.css"),
    include_str!("lists.css"),
);
/// One script: its files share a scope, and the last one starts the page.
const JS: &str = concat!(
    include_str!("texts.js"),
    include_str!("words.js"),
    include_str!("parts.js"),
    include_str!("ask.js"),
    include_str!("today.js"),
    include_str!("chart.js"),
    include_str!("lists.js"),
    include_str!("app.js"),
);
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

struct Page {
    html: String,
    policy: String,
}

/// Whether a client asks for a page rather than for JSON: its `Accept` names `text/html`, at
/// least as gladly as `application/json`. `*/*` alone is not asking.
pub fn wants_page(headers: &HeaderMap) -> bool {
    let mut html = 0.0;
    let mut json = 0.0;
    let lines = headers.get_all(header::ACCEPT);
    let accepted = lines.iter().filter_map(|line| line.to_str().ok());
    for range in accepted.flat_map(|line| line.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts
            .find_map(|part| part.strip_prefix("q="))
            .map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
        if name.eq_ignore_ascii_case("text/html") {
            html = quality;
        } else if name.eq_ignore_ascii_case("application/json") {
            json = quality;
        }
    }
    html > 0.0 && html >= json
}

/// The page on which a holder types in the key and sees its usage. It holds no data, so whoever
/// asks may have it; its script asks the same path for JSON with the key.
pub fn usage_page() -> Response<Bytes> {
    static PAGE: OnceLock<Page> = OnceLock::new();
    let page = PAGE.get_or_init(Page::build);
    let mut response = Response::new(Bytes::from_static(page.html.as_bytes()));
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, &page.policy),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "accept"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

impl Page {
    /// Puts style and script into the page; the policy lets nothing else run.
    fn build() -> Self {
        Self {
            html: HTML.replace("{{style}}", CSS).replace("{{script}}", JS),
            policy: format!(
                "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; \
                 img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                 require-trusted-types-for 'script'; trusted-types 'none'",
                source_hash(JS),
                source_hash(CSS)
            ),
        }
    }
}

/// `sha256-…` of an inline element's text, for a content security policy.
fn source_hash(text: &str) -> String {
    let mut hash = "sha256-".to_owned();
    for bytes in Sha256::digest(text.as_bytes()).chunks(3) {
        let [first, rest @ ..] = bytes else { continue };
        let second = rest.first().copied().unwrap_or_default();
        let third = rest.get(1).copied().unwrap_or_default();
        let number = u32::from_be_bytes([0, *first, second, third]);
        for place in 0..4 {
            let six = (number >> (18 - 6 * place)) & 63;
            let digit = char::from(BASE64[six as usize]);
            hash.push(if place <= bytes.len() { digit } else { '=' });
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_ask_for_the_page_and_scripts_do_not() {
        let asks = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            wants_page(&headers)
        };
        assert!(asks("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(asks("application/json;q=0.5, text/html"));
        for accept in
            ["*/*", "application/json", "text/html;q=0", "text/html;q=0.5, application/json"]
        {
            assert!(!asks(accept), "{accept}");
        }
        assert!(!wants_page(&HeaderMap::new()));
    }

    #[test]
    fn a_source_hash_is_base64_of_sha_256() {
        assert_eq!(source_hash(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn the_page_is_whole() {
        let page = Page::build();
        assert!(!page.html.contains("{{"));
        assert!(page.html.contains(JS) && page.html.contains(CSS));
        // Else the element would end within its text, and the hash would not match.
        assert_eq!((JS.find("</"), CSS.find("</")), (None, None));
    }
}
