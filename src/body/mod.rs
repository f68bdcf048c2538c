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

/// The functions of `Body` for a pinned body type that only wraps its field `inner`.
#[cfg(any(
    feature = "auth",
    feature = "openai",
    feature = "proxy",
    feature = "quota",
    feature = "usage"
))]
macro_rules! delegate_body {
    () => {
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
            self.project().inner.poll_frame(cx)
        }

        fn is_end_stream(&self) -> bool {
            self.inner.is_end_stream()
        }

        fn size_hint(&self) -> http_body::SizeHint {
            self.inner.size_hint()
        }
    };
}
#[cfg(any(
    feature = "auth",
    feature = "openai",
    feature = "proxy",
    feature = "quota",
    feature = "usage"
))]
pub(crate) use delegate_body;

/// Declares the body of a middleware: an opaque wrapper of another body with the same data, errors, frames
/// and size hint.
#[cfg(any(feature = "auth", feature = "openai", feature = "quota", feature = "usage"))]
macro_rules! opaque_body {
    ($(#[$doc:meta])* pub struct $name:ident<B>($inner:ty) $(where $data:ty: $bound:path)?;) => {
        pin_project_lite::pin_project! {
            $(#[$doc])*
            pub struct $name<B> {
                #[pin]
                inner: $inner,
            }
        }

        impl<B> http_body::Body for $name<B>
        where
            B: http_body::Body,
            $($data: $bound,)?
        {
            type Data = B::Data;
            type Error = B::Error;

            $crate::body::delegate_body!();
        }

        impl<B> std::fmt::Debug for $name<B> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}
#[cfg(any(feature = "auth", feature = "openai", feature = "quota", feature = "usage"))]
pub(crate) use opaque_body;
