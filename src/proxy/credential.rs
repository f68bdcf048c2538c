use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use http::HeaderValue;

use super::secret::Secret;

/// The `Authorization` that every request to the upstream gets. Clones share it, so that it can be
/// replaced while the proxy runs. `Debug` hides it.
///
/// ```
/// use http::HeaderValue;
/// use tower_quota::proxy::UpstreamCredential;
///
/// let credential = UpstreamCredential::new(HeaderValue::from_static("Bearer sk-old"));
/// // … `proxy.credential(credential.clone())` …
/// credential.replace(HeaderValue::from_static("Bearer sk-new"));
/// ```
#[derive(Clone)]
pub struct UpstreamCredential(Arc<ArcSwap<Authorization>>);

/// A value, and the part of it that is masked.
struct Authorization {
    value: HeaderValue,
    secret: Option<Secret>,
}

impl UpstreamCredential {
    /// A credential of this value, for example `Bearer sk-…`.
    pub fn new(authorization: HeaderValue) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Authorization::new(authorization))))
    }

    /// Gives requests that begin from now on another value. In the answers to those under way, the
    /// value that they were sent with is still masked.
    pub fn replace(&self, authorization: HeaderValue) {
        self.0.store(Arc::new(Authorization::new(authorization)));
    }

    /// The value for a request, and what must be masked in its answer.
    pub(super) fn get(&self) -> (HeaderValue, Option<Secret>) {
        let current = self.0.load();
        (current.value.clone(), current.secret.clone())
    }
}

impl Authorization {
    fn new(mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        Self { secret: Secret::of(&value), value }
    }
}

impl From<HeaderValue> for UpstreamCredential {
    fn from(authorization: HeaderValue) -> Self {
        Self::new(authorization)
    }
}

impl fmt::Debug for UpstreamCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamCredential(…)")
    }
}
