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

/// The setters that the options of all stores with an engine have, in the `impl` of the options.
#[cfg(feature = "engine")]
macro_rules! engine_option_setters {
    () => {
        /// Sets the calendar of the quota's days.
        #[must_use]
        pub fn calendar(self, calendar: crate::clock::Calendar) -> Self {
            Self { calendar, ..self }
        }

        /// Sets the durability of units.
        #[must_use]
        pub fn durability(self, durability: crate::store::engine::Durability) -> Self {
            Self { durability, ..self }
        }

        /// Sets the limit of rows that were typed into `api_keys` without one.
        #[must_use]
        pub fn default_daily_limit(self, default_daily_limit: crate::key::Limit) -> Self {
            Self { default_daily_limit, ..self }
        }

        /// Sets the number of days for which single requests are kept, in addition to the daily sums,
        /// which are kept forever. The default is 0, which keeps none.
        #[must_use]
        pub fn retention_days(self, retention_days: u32) -> Self {
            Self { retention_days, ..self }
        }
    };
}

/// The functions of `Body` for a pinned body type that only wraps its field `inner`.
#[cfg(any(feature = "auth", feature = "openai", feature = "proxy", feature = "usage"))]
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
#[cfg(any(feature = "auth", feature = "openai", feature = "usage"))]
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
