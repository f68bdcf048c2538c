//! The holders' page.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};

use crate::page::{Page, Part};

const PARTS: &[Part] = &[
    Part::BASE,
    Part::ENTRY,
    Part::USAGE,
    Part {
        html: include_str!("body.html"),
        style: include_str!("page.css"),
        script: concat!(
            include_str!("texts.js"),
            include_str!("today.js"),
            include_str!("lists.js"),
            include_str!("app.js"),
        ),
    },
];

/// Returns whether a client prefers a page to JSON: its `Accept` names `text/html` with at least the
/// quality of `application/json`. `*/*` alone does not count.
pub fn prefers_html(headers: &HeaderMap) -> bool {
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

/// Returns the page on which a holder enters the key and sees its usage. It holds no data, so it needs
/// no credential; its script requests JSON from the same path with the key.
///
/// ```
/// use http::Request;
/// use tower_quota::usage::{prefers_html, usage_page};
///
/// let request = Request::get("/usage").header("accept", "text/html,*/*;q=0.8").body(())?;
/// // Before authentication; everything else goes to the holder's report.
/// if prefers_html(request.headers()) {
///     assert_eq!(usage_page().headers()["content-type"], "text/html; charset=utf-8");
/// }
/// # Ok::<(), http::Error>(())
/// ```
pub fn usage_page() -> Response<Bytes> {
    static PAGE: OnceLock<Page> = OnceLock::new();
    let mut response = PAGE.get_or_init(|| Page::new("Usage", PARTS, &[])).response();
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::catalog,
        page::tests::{Texts, assert_page},
    };

    #[test]
    fn browsers_prefer_the_page_and_scripts_do_not() {
        let prefers = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            prefers_html(&headers)
        };
        assert!(prefers("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(prefers("application/json;q=0.5, text/html"));
        for accept in
            ["*/*", "application/json", "text/html;q=0", "text/html;q=0.5, application/json"]
        {
            assert!(!prefers(accept), "{accept}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }

    #[test]
    fn the_page_is_complete_and_in_both_languages() {
        assert_page(&Page::new("Usage", PARTS, &[]), PARTS);
    }

    #[test]
    fn every_code_of_a_key_has_words() {
        let texts = Texts::of(PARTS);
        let of_authentication = [
            catalog::INVALID_API_KEY,
            catalog::KEY_DISABLED,
            catalog::KEY_EXPIRED,
            catalog::KEY_MISCONFIGURED,
            catalog::RATE_LIMIT_EXCEEDED,
            catalog::STORE_UNAVAILABLE,
        ];
        texts.assert_words("problems", &[&of_authentication]);
        // The ledger has no requests without a key.
        let keyless = [
            catalog::MISSING_API_KEY,
            catalog::CONFLICTING_API_KEYS,
            catalog::INVALID_API_KEY,
            catalog::QUOTA_SUBJECT_MISSING,
        ];
        let has_key = |code: &&catalog::ErrorCode| !keyless.contains(code);
        let of_layers: Vec<_> = catalog::LAYERS.iter().filter(has_key).copied().collect();
        texts.assert_words("causes", &[&of_layers, catalog::UPSTREAM]);
    }
}
