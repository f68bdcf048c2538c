//! The page at `/`.

use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderValue, Response, header};

/// Allows no scripts, no subresources and no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font:1rem/1.6 system-ui,sans-serif;max-width:34rem;margin:12vh auto;\
                     padding:0 1rem}h1{font-size:1.4rem}a{color:inherit}";

/// The page at `/`, which says whose gateway this is and links to `/usage`.
pub(crate) struct Home(Bytes);

impl Home {
    pub(crate) fn new(name: Option<&str>, contact: Option<&str>, notice: Option<&str>) -> Self {
        let name = escaped(name.unwrap_or("API gateway"));
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <title>{name}</title><style>{STYLE}</style></head><body><main><h1>{name}</h1>"
        );
        let mut add = |paragraph: String| {
            // Writing to a `String` cannot fail.
            let _ = write!(html, "<p>{paragraph}</p>");
        };
        if let Some(notice) = notice {
            add(escaped(notice));
        }
        add("<a href=\"/usage\">What is left of my quota</a> · \
             <a href=\"/usage\" lang=\"zh\">我的用量</a>"
            .to_owned());
        if let Some(contact) = contact {
            add(linked(contact));
        }
        html.push_str("</main></body></html>\n");
        Self(html.into())
    }

    /// Returns the page as a response.
    pub(crate) fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.0.clone());
        for (name, value) in [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Renders the contact, as a link if it is a URL or an e-mail address.
fn linked(contact: &str) -> String {
    let text = escaped(contact);
    let is_word = !contact.contains(char::is_whitespace);
    if is_word && (contact.starts_with("https://") || contact.starts_with("http://")) {
        format!("<a href=\"{text}\">{text}</a>")
    } else if is_word && contact.split_once('@').is_some_and(|(_, host)| host.contains('.')) {
        format!("<a href=\"mailto:{text}\">{text}</a>")
    } else {
        text
    }
}

fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            letter => html.push(letter),
        }
    }
    html
}
