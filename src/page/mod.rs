//! Shared parts of the pages, their frame, and the response. A page is one file that loads nothing
//! else. It holds no data, so it needs no credential.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use sha2::{Digest, Sha256};

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const FRAME: &str = include_str!("frame.html");
const NOSCRIPT: &str = "<noscript><p class=\"notice bad\">This page needs JavaScript. \
    <span lang=\"zh-CN\">此页面需要 JavaScript。</span></p></noscript>";

/// Markup, style and script of one subject, with the texts that it shows. A page is a list of parts,
/// whose scripts share a scope.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(crate) html: &'static str,
    pub(crate) style: &'static str,
    pub(crate) script: &'static str,
}

impl Part {
    /// What every page needs: layout and controls, texts, elements, requests.
    pub(crate) const BASE: Self = Self::shared(
        include_str!("base.css"),
        concat!(include_str!("texts.js"), include_str!("elements.js"), include_str!("request.js")),
    );
    /// The form in which a secret is entered.
    pub(crate) const ENTRY: Self =
        Self::shared(include_str!("entry.css"), include_str!("entry.js"));
    /// Usage of one key or all: a chart of 30 days, today's meter, models, causes of failures.
    pub(crate) const USAGE: Self = Self::shared(
        include_str!("usage.css"),
        concat!(include_str!("usage.js"), include_str!("chart.js")),
    );
    /// A new key and client settings, to be copied.
    #[cfg(feature = "admin")]
    pub(crate) const HANDOUT: Self =
        Self::shared(include_str!("handout.css"), include_str!("handout.js"));

    const fn shared(style: &'static str, script: &'static str) -> Self {
        Self { html: "", style, script }
    }
}

/// A page and its content security policy.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    html: Bytes,
    policy: HeaderValue,
}

impl Page {
    /// Puts the parts into the frame; the first one with markup opens the body. `{{name}}` in their
    /// markup is replaced by its value. The policy lets nothing run but the page's style and script.
    pub(crate) fn new(title: &str, parts: &[Part], values: &[(&str, &str)]) -> Self {
        let join = |of: fn(&Part) -> &str| parts.iter().map(of).collect::<String>();
        let (style, script) = (join(|part| part.style), join(|part| part.script));
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'",
            source_hash(&script),
            source_hash(&style)
        );
        let body = join(|part| part.html);
        let values = values.iter().copied();
        // Style and script come last, as they are not markup to replace in.
        let html = [("title", title), ("body", &body), ("noscript", NOSCRIPT)]
            .into_iter()
            .chain(values)
            .chain([("style", &*style), ("script", &*script)])
            .fold(FRAME.to_owned(), |html, (name, value)| {
                html.replace(&format!("{{{{{name}}}}}"), value)
            });
        Self {
            html: html.into(),
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

#[cfg(test)]
pub(crate) mod tests;
