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
