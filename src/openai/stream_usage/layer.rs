use std::{fmt, sync::Arc};

use http::request::Parts;
use tower_layer::Layer;

use super::{HideUsage, IncludeUsage, buffered::BufferBudget, service::OptionSupport};

/// Default maximum length of a request body that is changed.
const MAX_BODY: usize = 1 << 20;
/// Default maximum number of bytes of all request bodies that are held in memory.
const MAX_BUFFERED: usize = 64 << 20;

/// Layer that applies [`IncludeUsage`] and [`HideUsage`]: streamed chats request usage, which is hidden from
/// clients that did not request it.
///
/// See the [module](super) for its rules.
#[derive(Clone, Debug)]
pub struct StreamUsageLayer {
    include: IncludeUsageLayer,
}

/// Layer that applies [`IncludeUsage`]: the half of [`StreamUsageLayer`] that changes requests.
///
/// Clones share the maximum of all bodies, and what is known of the upstream.
#[derive(Clone)]
pub struct IncludeUsageLayer {
    pub(super) applies_to: Arc<AppliesTo>,
    pub(super) max_body: usize,
    pub(super) budget: BufferBudget,
    pub(super) support: OptionSupport,
}

/// Layer that applies [`HideUsage`]: the half of [`StreamUsageLayer`] that changes responses.
#[derive(Clone, Copy, Debug, Default)]
pub struct HideUsageLayer(());

/// Decides which requests may be changed.
type AppliesTo = dyn Fn(&Parts) -> bool + Send + Sync;

/// Returns whether the request is for chat completions.
fn is_chat(request: &Parts) -> bool {
    request.uri.path().ends_with("/chat/completions")
}

impl StreamUsageLayer {
    /// Creates a layer for chat completions in bodies of at most 1 MiB, with at most 64 MiB of all bodies in
    /// memory.
    pub fn new() -> Self {
        Self { include: IncludeUsageLayer::new() }
    }

    /// Sets which requests may be changed, besides what the rules say of their method, content coding and
    /// JSON. Those with a path that ends with `/chat/completions` by default.
    #[must_use]
    pub fn applies_to(self, applies: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        Self { include: IncludeUsageLayer { applies_to: Arc::new(applies), ..self.include } }
    }

    /// Sets the maximum length of a request body that is changed. Longer ones pass untouched.
    #[must_use]
    pub fn max_body(self, max_body: usize) -> Self {
        Self { include: IncludeUsageLayer { max_body, ..self.include } }
    }

    /// Sets the maximum number of bytes of all bodies that are held in memory, for all clones of the layer and
    /// their services. A body beyond it passes untouched.
    #[must_use]
    pub fn max_buffered(self, bytes: usize) -> Self {
        let budget = BufferBudget::new(bytes);
        Self { include: IncludeUsageLayer { budget, ..self.include } }
    }

    /// Splits the layer into one for responses, which stands further out, and one for requests, which stands
    /// further in.
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// # use bytes::Bytes;
    /// # use http::{Request, Response};
    /// # use http_body_util::Full;
    /// # use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// # use tower_quota::openai::stream_usage::{BufferedBody, StreamUsageLayer};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let inner = service_fn(|_: Request<BufferedBody<Full<Bytes>>>| async {
    /// #     Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    /// # });
    /// let (hide, include) = StreamUsageLayer::new().split();
    /// let service = ServiceBuilder::new()
    ///     // .layer(authentication)
    ///     .layer(hide)
    ///     // .layer(usage recorder)
    ///     // .layer(quota)
    ///     .layer(include)
    ///     .service(inner);
    /// # service.oneshot(Request::new(Full::default())).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn split(self) -> (HideUsageLayer, IncludeUsageLayer) {
        (HideUsageLayer(()), self.include)
    }
}

impl IncludeUsageLayer {
    pub(super) fn new() -> Self {
        Self {
            applies_to: Arc::new(is_chat),
            max_body: MAX_BODY,
            budget: BufferBudget::new(MAX_BUFFERED),
            support: OptionSupport::default(),
        }
    }
}

impl Default for StreamUsageLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for IncludeUsageLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncludeUsageLayer")
            .field("max_body", &self.max_body)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for StreamUsageLayer {
    type Service = HideUsage<IncludeUsage<S>>;

    fn layer(&self, inner: S) -> Self::Service {
        HideUsage { inner: self.include.layer(inner) }
    }
}

impl<S> Layer<S> for IncludeUsageLayer {
    type Service = IncludeUsage<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IncludeUsage { inner, layer: Arc::new(self.clone()) }
    }
}

impl<S> Layer<S> for HideUsageLayer {
    type Service = HideUsage<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HideUsage { inner }
    }
}
