//! The operators' page.

use bytes::Bytes;
use http::Response;

use crate::page::{Page, Part};

/// A view: its markup, and its script with its texts, which registers it.
macro_rules! view {
    ($name:literal) => {
        Part {
            html: include_str!(concat!("views/", $name, ".html")),
            style: "",
            script: include_str!(concat!("views/", $name, ".js")),
        }
    };
}

const PARTS: &[Part] = &[
    Part::BASE,
    Part::ENTRY,
    Part::USAGE,
    Part::HANDOUT,
    Part {
        html: concat!(include_str!("body.html"), include_str!("dialogs.html")),
        style: include_str!("page.css"),
        script: concat!(
            include_str!("api.js"),
            include_str!("shell.js"),
            include_str!("marks.js"),
            include_str!("fields.js"),
            include_str!("actions.js"),
            include_str!("dialogs.js"),
        ),
    },
    // In the order of the navigation.
    view!("overview"),
    view!("keys"),
    view!("create"),
    view!("key"),
    view!("audit"),
    view!("settings"),
    Part { html: "", style: "", script: include_str!("app.js") },
];

/// The page of an admin service.
#[derive(Clone)]
pub(super) struct AdminPage(Page);

impl AdminPage {
    /// Creates the page of a service at this prefix. An empty base URL stands for `/v1` of the page's
    /// own server.
    pub(super) fn new(prefix: &str, base_url: &str) -> Self {
        let (prefix, base_url) = (escape_attribute(prefix), escape_attribute(base_url));
        let values = [("prefix", &*prefix), ("base_url", &*base_url)];
        Self(Page::new("Trial keys", PARTS, &values))
    }

    pub(super) fn response(&self) -> Response<Bytes> {
        self.0.response()
    }
}

/// Removes the characters of a URL that could end an attribute.
fn escape_attribute(url: &str) -> String {
    let is_safe = |letter: &char| letter.is_ascii_graphic() && !"\"'<>&{}`".contains(*letter);
    url.chars().filter(is_safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::catalog::{self, ErrorCode},
        page::tests::{Texts, assert_page},
    };

    /// Codes that the page shows by the gateway's own message, as its forms let nothing else happen.
    const SHOWN_BY_MESSAGE: &[ErrorCode] = &[
        catalog::INVALID_JSON,
        catalog::INVALID_CSV,
        catalog::INVALID_FIELD,
        catalog::MISSING_FIELD,
        catalog::UNKNOWN_FIELD,
        catalog::KEY_EXISTS,
        catalog::IDEMPOTENCY_KEY_REUSED,
    ];
    /// Codes of calls that the page does not make, and those of its sign-in.
    const NOT_SHOWN: &[ErrorCode] = &[
        catalog::MISSING_ADMIN_TOKEN,
        catalog::INVALID_ADMIN_TOKEN,
        catalog::INVALID_METRICS_TOKEN,
        catalog::IN_PROGRESS,
        catalog::BACKUP_FAILED,
        catalog::NOT_SUPPORTED,
    ];

    #[test]
    fn the_page_is_complete_and_in_both_languages() {
        assert_page(&AdminPage::new("/admin", "https://keys.example/v1").0, PARTS);
    }

    #[test]
    fn every_action_of_the_audit_trail_has_words() {
        Texts::of(PARTS).assert_group("actions", crate::admin::store::action::ALL);
    }

    #[test]
    fn every_code_of_the_admin_api_has_words() {
        let has_words = |code: &&ErrorCode| {
            !SHOWN_BY_MESSAGE.contains(code)
                && !NOT_SHOWN.contains(code)
                && !code.code().starts_with("claim_")
        };
        let codes: Vec<ErrorCode> = catalog::ADMIN.iter().filter(has_words).copied().collect();
        Texts::of(PARTS).assert_words("problems", &[&codes, &[catalog::STORE_UNAVAILABLE]]);
    }
}
