use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header, request};
use tower_layer::Layer;

use super::{
    FairShare,
    places::{Places, QueueSubject},
};
use crate::{
    error::{ProblemJson, Reject, catalog},
    key::KeyId,
    quota::layer::FromRequest,
    request::RequestContext,
};

const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(30);
/// Value of `Retry-After`, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Layer that applies [`FairShare`]: limits how many requests are with the inner service at once, and lets the
/// others wait, in turn by key.
///
/// # Rules
///
/// - A request takes a place before the inner service is called, and gives it back at the end of the response
///   body: when the body has ended, has failed or is dropped, when the inner service returns an error, and when
///   the response future is dropped.
/// - While all places are taken, requests wait in a queue for each [subject](Self::subject). A place that is
///   given back goes to the subjects in turn, whatever the lengths of their queues: a new one is served after at
///   most one request of each other subject that waits already. Within a queue, the first request comes first.
/// - A request that has waited for [`max_wait`](Self::max_wait) is rejected with 503 and `Retry-After: 1`. Inside
///   of a [`DailyQuota`](crate::quota::DailyQuota) it costs nothing.
/// - The body of a waiting request is not read.
/// - Clones of the layer, and all services that they are applied to, share the places.
/// - The services must be used within a Tokio runtime. There is no task, and no timer unless a request waits.
///
/// # Example
///
/// ```
/// use std::{convert::Infallible, num::NonZeroU32, time::Duration};
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_quota::quota::FairShareLayer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let fair_share = FairShareLayer::new(NonZeroU32::MIN).max_wait(Duration::from_millis(10));
/// let service = fair_share.layer(service_fn(|_: Request<Full<Bytes>>| async {
///     Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
/// }));
/// let send = || service.clone().oneshot(Request::new(Full::default()));
///
/// let first = send().await?;
/// assert_eq!(send().await?.status(), 503, "the body of the first response has not ended");
/// first.into_body().collect().await?;
/// assert_eq!(send().await?.status(), 200);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FairShareLayer {
    /// `None` if there is no limit.
    pub(super) places: Option<Arc<Places>>,
    pub(super) max_wait: Duration,
    pub(super) subject: FromRequest<QueueSubject>,
    reject: Arc<dyn Reject>,
}

impl FairShareLayer {
    /// Creates a layer with this number of places. `None` means no limit.
    pub fn new(max: impl Into<Option<NonZeroU32>>) -> Self {
        Self {
            places: max.into().map(|max| Arc::new(Places::new(max))),
            max_wait: DEFAULT_MAX_WAIT,
            subject: Arc::new(|request| {
                let context = request.extensions.get::<RequestContext>();
                context.and_then(RequestContext::key_id)
            }),
            reject: Arc::new(ProblemJson),
        }
    }

    /// Sets the maximum time that a request waits. 30 s by default.
    #[must_use]
    pub fn max_wait(self, max_wait: Duration) -> Self {
        Self { max_wait, ..self }
    }

    /// Sets whose turn a request takes. The key in the request's [`RequestContext`] by default. All requests
    /// without a subject share one queue. `subject` is not called for a request that does not wait.
    #[must_use]
    pub fn subject<F, T>(self, subject: F) -> Self
    where
        F: Fn(&request::Parts) -> T + Send + Sync + 'static,
        T: Into<Option<KeyId>>,
    {
        Self { subject: Arc::new(move |request| subject(request).into()), ..self }
    }

    /// Renders rejections with `reject`, which is [`ProblemJson`] by default.
    #[must_use]
    pub fn reject(self, reject: impl Reject) -> Self {
        Self { reject: Arc::new(reject), ..self }
    }

    /// Renders the rejection of a request that has waited too long.
    pub(super) fn render<B>(&self, request: &Request<B>) -> Response<Bytes> {
        catalog::UPSTREAM_RATE_LIMITED
            .with_message("Too many requests are at the upstream; please try again in a moment.")
            .header(header::RETRY_AFTER, RETRY_AFTER)
            .render(&*self.reject, request)
    }
}

impl<S> Layer<S> for FairShareLayer {
    type Service = FairShare<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FairShare { inner, layer: Arc::new(self.clone()) }
    }
}

impl fmt::Debug for FairShareLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairShareLayer").field("max_wait", &self.max_wait).finish_non_exhaustive()
    }
}
