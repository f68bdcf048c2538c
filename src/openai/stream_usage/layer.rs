use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{
    ChatCompletions, HideUsage, IncludeUsage,
    room::Room,
    service::{Refused, Shared},
};

/// Asks for the usage of streamed chats and hides it from clients that did not. See the
/// [module](super) for its rules.
pub struct StreamUsageLayer<A = ChatCompletions> {
    include: IncludeUsageLayer<A>,
}

/// The half of [`StreamUsageLayer`] that changes requests.
pub struct IncludeUsageLayer<A = ChatCompletions> {
    shared: Arc<Shared<A>>,
}

/// The half of [`StreamUsageLayer`] that changes answers to requests which were changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct HideUsageLayer(());

impl StreamUsageLayer {
    /// For chat completions in bodies of at most 1 MiB, and 64 MiB of all that are held back at once.
    pub fn new() -> Self {
        Self::from_shared(Shared {
            applies: ChatCompletions,
            max_body: 1 << 20,
            refused: Refused::default(),
            room: Room::new(64 << 20),
        })
    }
}

impl<A> StreamUsageLayer<A> {
    fn from_shared(shared: Shared<A>) -> Self {
        Self { include: IncludeUsageLayer { shared: Arc::new(shared) } }
    }

    /// One layer for requests, which stands further in, and one for answers, which stands further out.
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// # use bytes::Bytes;
    /// # use http::{Request, Response};
    /// # use http_body_util::Full;
    /// # use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// # use tower_quota::openai::stream_usage::{IncludedBody, StreamUsageLayer};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let inner = service_fn(|_: Request<IncludedBody<Full<Bytes>>>| async {
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
    pub fn split(self) -> (HideUsageLayer, IncludeUsageLayer<A>) {
        (HideUsageLayer(()), self.include)
    }
}

impl<A: Clone> StreamUsageLayer<A> {
    /// Applies to other requests.
    #[must_use]
    pub fn applies_to<A2>(self, applies: A2) -> StreamUsageLayer<A2> {
        let Shared { applies: _, max_body, refused, room } =
            Arc::unwrap_or_clone(self.include.shared);
        StreamUsageLayer::from_shared(Shared { applies, max_body, refused, room })
    }

    /// Reads bodies of at most so many bytes; longer ones pass untouched.
    #[must_use]
    pub fn max_body(self, max_body: usize) -> Self {
        let shared = Arc::unwrap_or_clone(self.include.shared);
        Self::from_shared(Shared { max_body, ..shared })
    }

    /// Holds back at most so many bytes of all bodies together, for all clones of the layer and their
    /// services. A body for which there is no room passes untouched.
    #[must_use]
    pub fn max_held(self, bytes: usize) -> Self {
        let shared = Arc::unwrap_or_clone(self.include.shared);
        Self::from_shared(Shared { room: Room::new(bytes), ..shared })
    }
}

impl Default for StreamUsageLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<A> Clone for StreamUsageLayer<A> {
    fn clone(&self) -> Self {
        Self { include: self.include.clone() }
    }
}

impl<A> Clone for IncludeUsageLayer<A> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<A> fmt::Debug for StreamUsageLayer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamUsageLayer").field("include", &self.include).finish()
    }
}

impl<A> fmt::Debug for IncludeUsageLayer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncludeUsageLayer")
            .field("max_body", &self.shared.max_body)
            .finish_non_exhaustive()
    }
}

impl<S, A> Layer<S> for StreamUsageLayer<A> {
    type Service = HideUsage<IncludeUsage<S, A>>;

    fn layer(&self, inner: S) -> Self::Service {
        HideUsage { inner: self.include.layer(inner) }
    }
}

impl<S, A> Layer<S> for IncludeUsageLayer<A> {
    type Service = IncludeUsage<S, A>;

    fn layer(&self, inner: S) -> Self::Service {
        IncludeUsage { inner, shared: self.shared.clone() }
    }
}

impl<S> Layer<S> for HideUsageLayer {
    type Service = HideUsage<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HideUsage { inner }
    }
}
