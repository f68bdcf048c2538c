//! Building blocks of response bodies: [`ResponseBody`] is the inner service's or the layer's own, and
//! [`ObservedBody`] detects how a body ended.

mod observed;
mod response;

#[cfg(feature = "quota")]
pub(crate) use observed::EndDetector;
pub use observed::{BodyEnd, BodyObserver, ObservedBody, expected_length};
pub use response::ResponseBody;

/// Returns the size hint of a body with `read` bytes in a buffer and `rest` still to come.
#[cfg(any(feature = "proxy", feature = "quota"))]
pub(crate) fn with_read(rest: &http_body::SizeHint, read: usize) -> http_body::SizeHint {
    let read = read as u64;
    let mut hint = http_body::SizeHint::new();
    hint.set_lower(rest.lower().saturating_add(read));
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper.saturating_add(read));
    }
    hint
}
