//! The page of a claim link.

use std::sync::OnceLock;

use bytes::Bytes;
use http::Response;

use crate::page::{Page, Part};

const PARTS: &[Part] = &[
    Part::BASE,
    Part::HANDOUT,
    Part {
        html: include_str!("body.html"),
        style: include_str!("page.css"),
        script: concat!(include_str!("texts.js"), include_str!("app.js")),
    },
];

/// Returns the page of a claim link. Its script reads the token from the fragment of the URL, which
/// browsers do not send to servers, and posts it to the same path.
pub(crate) fn claim_page() -> Response<Bytes> {
    static PAGE: OnceLock<Page> = OnceLock::new();
    PAGE.get_or_init(|| Page::new("Your key", PARTS, &[])).response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::catalog,
        page::tests::{Texts, assert_page},
    };

    #[test]
    fn the_page_is_complete_and_in_both_languages() {
        assert_page(&Page::new("Your key", PARTS, &[]), PARTS);
    }

    #[test]
    fn every_code_of_a_claim_has_words() {
        let of_claims = |code: &&catalog::ErrorCode| code.code().starts_with("claim_");
        let codes: Vec<_> = catalog::ADMIN.iter().filter(of_claims).copied().collect();
        let others = [catalog::STORE_UNAVAILABLE, catalog::TOO_MANY_ATTEMPTS];
        Texts::of(PARTS).assert_words("problems", &[&codes, &others]);
    }
}
