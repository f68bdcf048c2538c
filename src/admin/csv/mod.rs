//! Comma-separated values (RFC 4180), and responses that are downloaded as files.

mod rows;
mod text;

use http::{HeaderValue, Response, header};

pub use self::rows::{AdminBody, AdminRows};
pub(super) use self::{
    rows::{Chunks, NextChunk},
    text::{BYTE_ORDER_MARK, Cell, Csv, unescape},
};

pub(super) const CSV: &str = "text/csv; charset=utf-8";

/// A response that browsers save as a file with this name.
pub(super) fn attachment(
    name: &str,
    content_type: &'static str,
    body: AdminBody,
) -> Response<AdminBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(name) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    response
}
