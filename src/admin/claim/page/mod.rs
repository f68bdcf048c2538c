//! The page of a claim link.

use std::sync::OnceLock;

use bytes::Bytes;
use http::Response;

use crate::page::Page;

const HTML: &str = include_str!("index.html");
const CSS: &str = concat!(
    include_str!("../../../page/base.css"),
    include_str!("../../../page/frame.css"),
    include_str!("../../../page/table.css"),
    include_str!("../../../page/handout.css"),
    include_str!("claim.css"),
);
const JS: &str = concat!(
    include_str!("../../../page/texts.js"),
    include_str!("texts.js"),
    include_str!("../../../page/words.js"),
    include_str!("../../../page/parts.js"),
    include_str!("../../../page/ask.js"),
    include_str!("../../../page/copy.js"),
    include_str!("../../../page/handout.js"),
    include_str!("app.js"),
);

/// Returns the page of a claim link. Its script reads the token from the fragment of the URL, which
/// browsers do not send to servers, and posts it to the same path.
pub(crate) fn claim_page() -> Response<Bytes> {
    static PAGE: OnceLock<Page> = OnceLock::new();
    PAGE.get_or_init(|| Page::new(HTML, CSS, JS)).response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::assert_complete;

    #[test]
    fn the_page_contains_style_and_script_unchanged() {
        assert_complete(&Page::new(HTML, CSS, JS), CSS, JS);
    }
}
