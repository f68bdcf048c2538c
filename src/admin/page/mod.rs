//! The operator's page: four files, embedded, without any outside request.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::route::Asset;

const HTML: &str = include_str!("index.html");
const CSS: &str = include_str!("style.css");
const JS: &str = include_str!("app.js");
const TEXTS: &str = include_str!("texts.js");

/// Stands in the HTML where the prefix goes.
const PREFIX: &str = "{{prefix}}";

/// Only the page's own files run, and nothing that a label or an answer holds.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The page of a service that is mounted at some prefix.
#[derive(Clone)]
pub(super) struct Page(Arc<str>);

impl Page {
    pub(super) fn below(prefix: &str) -> Self {
        let safe: String = prefix
            .chars()
            .filter(|letter| letter.is_ascii_alphanumeric() || "/-._~".contains(*letter))
            .collect();
        Self(HTML.replace(PREFIX, &safe).into())
    }

    pub(super) fn answer(&self, asset: Asset) -> Response<Bytes> {
        const SCRIPT: &str = "text/javascript; charset=utf-8";
        let (content_type, body) = match asset {
            Asset::Html => ("text/html; charset=utf-8", Bytes::from(self.0.to_string())),
            Asset::Css => ("text/css; charset=utf-8", CSS.into()),
            Asset::Js => (SCRIPT, JS.into()),
            Asset::Texts => (SCRIPT, TEXTS.into()),
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        response
    }
}
