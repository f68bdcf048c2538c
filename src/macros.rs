//! Macros of several modules.

/// The accessors of a middleware's inner service, in the `impl` of the middleware.
#[cfg(any(feature = "auth", feature = "openai", feature = "quota", feature = "usage"))]
macro_rules! inner_accessors {
    ($S:ident) => {
        /// Returns a reference to the inner service.
        pub fn get_ref(&self) -> &$S {
            &self.inner
        }

        /// Returns a mutable reference to the inner service.
        pub fn get_mut(&mut self) -> &mut $S {
            &mut self.inner
        }

        /// Returns the inner service.
        pub fn into_inner(self) -> $S {
            self.inner
        }
    };
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

            delegate_body!();
        }

        impl<B> std::fmt::Debug for $name<B> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}
