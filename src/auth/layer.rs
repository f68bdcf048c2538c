use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use tower_layer::Layer;

use super::{AuthRejection, CredentialSource, TrialKeyAuth, credential::default_source};
use crate::{
    clock::{Clock, SystemClock},
    error::{ProblemJson, Reject},
    store::KeyStore,
};

/// Layer that applies [`TrialKeyAuth`]: only requests with an issued key reach the inner service.
///
/// See the [module](super) for its rules.
#[derive(Clone)]
pub struct TrialKeyAuthLayer {
    pub(super) store: Arc<dyn KeyStore>,
    pub(super) source: Arc<dyn CredentialSource>,
    pub(super) is_optional: bool,
    reject: Arc<dyn Reject>,
    pub(super) clock: Arc<dyn Clock>,
}

impl TrialKeyAuthLayer {
    /// Creates a layer that looks keys up in `store`.
    pub fn new(store: impl KeyStore) -> Self {
        Self {
            store: Arc::new(store),
            source: Arc::new(default_source()),
            is_optional: false,
            reject: Arc::new(ProblemJson),
            clock: Arc::new(SystemClock),
        }
    }

    /// Sets where the key is read. `Bearer.or(Header("x-trial-key")).or(Header("x-api-key"))` by
    /// default.
    ///
    /// ```
    /// use tower_quota::{auth::{Header, TrialKeyAuthLayer}, store::memory::MemoryStore};
    ///
    /// // `Authorization` belongs to the application.
    /// let auth = TrialKeyAuthLayer::new(MemoryStore::new()).credential(Header("x-api-key"));
    /// ```
    #[must_use]
    pub fn credential(self, source: impl CredentialSource) -> Self {
        Self { source: Arc::new(source), ..self }
    }

    /// Also passes requests without a credential, with no key in their
    /// [`RequestContext`](crate::request::RequestContext). Wrong, disabled and expired keys are still
    /// rejected.
    ///
    /// A quota inside needs to know what such a request counts on:
    ///
    /// ```
    /// # #[cfg(feature = "quota")] {
    /// use tower::ServiceBuilder;
    /// use tower_quota::{
    ///     auth::TrialKeyAuthLayer,
    ///     quota::{DailyQuotaLayer, Subject},
    ///     store::memory::MemoryStore,
    /// };
    ///
    /// let store = MemoryStore::new();
    /// let layers = ServiceBuilder::new()
    ///     .layer(TrialKeyAuthLayer::new(store.clone()).optional())
    ///     .layer(DailyQuotaLayer::new(store).subject(|request| match Subject::of_key(request) {
    ///         // Or the subject that all of them share.
    ///         Subject::Unknown => Subject::Exempt,
    ///         subject => subject,
    ///     }));
    /// # }
    /// ```
    #[must_use]
    pub fn optional(self) -> Self {
        Self { is_optional: true, ..self }
    }

    /// Renders rejections with `reject`, which is [`ProblemJson`] by default.
    #[must_use]
    pub fn reject(self, reject: impl Reject) -> Self {
        Self { reject: Arc::new(reject), ..self }
    }

    /// Compares the expiry of keys with `clock`, which is [`SystemClock`] by default.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Renders a rejection of this request.
    pub(super) fn render<B>(
        &self,
        rejection: &AuthRejection,
        request: &Request<B>,
    ) -> Response<Bytes> {
        rejection.with_hint(&*self.source).render(&*self.reject, request)
    }
}

impl<S> Layer<S> for TrialKeyAuthLayer {
    type Service = TrialKeyAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TrialKeyAuth { inner, layer: Arc::new(self.clone()) }
    }
}

impl fmt::Debug for TrialKeyAuthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrialKeyAuthLayer").finish_non_exhaustive()
    }
}
