//! The operators' page.

use bytes::Bytes;
use http::Response;

use crate::page::Page;

const HTML: &str = include_str!("index.html");
/// The markup of the views, each a template.
const VIEWS: &str = concat!(
    include_str!("views/overview.html"),
    include_str!("views/keys.html"),
    include_str!("views/key.html"),
    include_str!("views/create.html"),
    include_str!("views/audit.html"),
    include_str!("views/settings.html"),
    include_str!("views/dialogs.html"),
);
const CSS: &str = concat!(
    include_str!("../../page/base.css"),
    include_str!("../../page/frame.css"),
    include_str!("../../page/entry.css"),
    include_str!("../../page/chart.css"),
    include_str!("../../page/table.css"),
    include_str!("../../page/today.css"),
    include_str!("../../page/handout.css"),
    include_str!("shell.css"),
    include_str!("forms.css"),
    include_str!("lists.css"),
    include_str!("dialogs.css"),
);
const JS: &str = concat!(
    include_str!("../../page/texts.js"),
    include_str!("en.js"),
    include_str!("zh.js"),
    include_str!("../../page/words.js"),
    include_str!("../../page/parts.js"),
    include_str!("../../page/ask.js"),
    include_str!("../../page/copy.js"),
    include_str!("../../page/handout.js"),
    include_str!("../../page/meter.js"),
    include_str!("../../page/chart.js"),
    include_str!("../../page/models.js"),
    include_str!("api.js"),
    include_str!("shell.js"),
    include_str!("marks.js"),
    include_str!("fields.js"),
    include_str!("actions.js"),
    include_str!("views/dialogs.js"),
    include_str!("views/overview.js"),
    include_str!("views/keys.js"),
    include_str!("views/create.js"),
    include_str!("views/key.js"),
    include_str!("views/audit.js"),
    include_str!("views/settings.js"),
    include_str!("app.js"),
);

/// The page of an admin service.
#[derive(Clone)]
pub(super) struct AdminPage(Page);

impl AdminPage {
    /// Creates the page of a service at this prefix. An empty base URL stands for `/v1` of the page's
    /// own server.
    pub(super) fn new(prefix: &str, base_url: &str) -> Self {
        let html = HTML
            .replace("{{prefix}}", &escape_attribute(prefix))
            .replace("{{base_url}}", &escape_attribute(base_url))
            .replace("{{views}}", VIEWS);
        Self(Page::new(&html, CSS, JS))
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
    use crate::page::assert_complete;

    #[test]
    fn the_page_contains_style_and_script_unchanged() {
        assert_complete(&AdminPage::new("/admin", "https://keys.example/v1").0, CSS, JS);
    }
}
