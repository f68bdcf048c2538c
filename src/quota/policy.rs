use std::{any::Any, error::Error, fmt};

use http::{HeaderMap, request, response};

use crate::{
    body::BodyEnd,
    error::{Rejected, UpstreamFault, grpc},
    request::RequestContext,
    store::{QuotaSubject, Refund},
};

/// The point at which a reservation must be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitPoint {
    /// Before the response head is returned. The inner service is called at once, so its latency
    /// hides the commit.
    #[default]
    BeforeResponse,
    /// Before the inner service is called.
    BeforeForward,
}

/// Whose quota or limit a request counts on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// The request counts on this subject.
    Counted(QuotaSubject),
    /// The request passes uncounted.
    Exempt,
    /// The request should have a subject and has none: it is rejected with 500.
    Unknown,
}

impl Subject {
    /// Returns the key in the request's [`RequestContext`], the default subject of a quota.
    pub fn of_key(request: &request::Parts) -> Self {
        let context = request.extensions.get::<RequestContext>();
        context.and_then(RequestContext::key_subject).into()
    }
}

impl From<QuotaSubject> for Subject {
    fn from(subject: QuotaSubject) -> Self {
        Self::Counted(subject)
    }
}

/// `None` is [`Subject::Unknown`].
impl From<Option<QuotaSubject>> for Subject {
    fn from(subject: Option<QuotaSubject>) -> Self {
        subject.map_or(Self::Unknown, Self::Counted)
    }
}

/// Decides whether a request's reservation is kept or refunded.
///
/// A reservation is kept where the policy is not called: if the request is dropped before its
/// response head.
///
/// ```
/// use std::io;
/// use http::response::Parts;
/// use tower_quota::{
///     quota::{ChargeDecision, ChargePolicy, InnerError},
///     store::Refund,
/// };
///
/// /// A backend that could not be reached has done nothing.
/// struct ChargeReached;
///
/// impl ChargePolicy for ChargeReached {
///     fn at_head(&self, _: &Parts) -> ChargeDecision {
///         ChargeDecision::Keep
///     }
///
///     fn at_error(&self, error: InnerError<'_>) -> ChargeDecision {
///         match error.downcast_ref::<io::Error>().map(io::Error::kind) {
///             Some(io::ErrorKind::ConnectionRefused) => ChargeDecision::Refund(Refund::Always),
///             _ => ChargeDecision::Keep,
///         }
///     }
/// }
/// ```
pub trait ChargePolicy: Send + Sync + 'static {
    /// Called with the head of the inner service's response.
    fn at_head(&self, head: &response::Parts) -> ChargeDecision;

    /// Called with the error that the inner service has returned instead of a response.
    fn at_error(&self, error: InnerError<'_>) -> ChargeDecision {
        let _ = error;
        ChargeDecision::Keep
    }

    /// Called at the end of the response, if the reservation was not refunded at its head.
    fn at_end(&self, end: &ResponseEnd<'_>) -> ChargeDecision {
        let _ = end;
        ChargeDecision::Keep
    }
}

/// How a response ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ResponseEnd<'a> {
    /// How its body ended.
    pub body: BodyEnd,
    /// Number of bytes of the body that were read.
    pub bytes: u64,
    /// Its trailers, such as those with the `grpc-status` of a call.
    pub trailers: Option<&'a HeaderMap>,
}

impl ResponseEnd<'_> {
    /// Creates the end of a response without data and trailers.
    pub fn new(body: BodyEnd) -> Self {
        Self { body, bytes: 0, trailers: None }
    }
}

/// The error of an inner service, of whatever type it is: tower's `Overloaded` or `Elapsed`, say.
#[derive(Clone, Copy)]
pub struct InnerError<'a>(&'a dyn Any);

impl<'a> InnerError<'a> {
    /// Wraps an error.
    pub fn new(error: &'a impl Any) -> Self {
        Self(error)
    }

    /// Returns the error if it is an `E`. Of a boxed error, as tower's middleware return it
    /// (`Box<dyn Error + Send + Sync>`), returns the first `E` among the error and its sources.
    pub fn downcast_ref<E: Error + 'static>(self) -> Option<&'a E> {
        let boxed = || {
            let error = self.0.downcast_ref::<Box<dyn Error + Send + Sync>>()?;
            let mut next: Option<&'a (dyn Error + 'static)> = Some(&**error);
            while let Some(error) = next {
                if let Some(found) = error.downcast_ref() {
                    return Some(found);
                }
                next = error.source();
            }
            None
        };
        self.0.downcast_ref().or_else(boxed)
    }

    /// Returns whether [`downcast_ref`](Self::downcast_ref) finds an `E`.
    pub fn is<E: Error + 'static>(self) -> bool {
        self.downcast_ref::<E>().is_some()
    }
}

impl fmt::Debug for InnerError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InnerError")
    }
}

/// What happens to a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChargeDecision {
    /// The reservation is kept.
    Keep,
    /// The reservation is refunded.
    Refund(Refund),
}

/// The default [`ChargePolicy`]: refunds requests for which certainly no work was done.
///
/// | response | reservation |
/// |---|---|
/// | the upstream was never reached, or the request was rejected before it was sent | refunded |
/// | the upstream rejected the sponsor's credential or balance (401, 402), which no key holder can provoke | refunded |
/// | the upstream forbade or rate-limited the sponsor (403, 429), redirected, or failed (5xx); a 5xx of the handler's own; a request body that is malformed or grows too large on its way to the upstream | refunded, at most as many times a day as the limit |
/// | the inner service returned an error and no response, as one that sheds load does; a timeout of tower's is an error, too | refunded, at most as many times a day as the limit |
/// | a call of gRPC that the server failed (`UNKNOWN`, `UNIMPLEMENTED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`) before its first message | refunded, at most as many times a day as the limit |
/// | anything else: 2xx–4xx, another status of gRPC, a timeout of the upstream, a broken connection, a client that disconnects, also during its request body | kept |
#[derive(Clone, Copy, Debug, Default)]
pub struct ChargeUnlessUndone;

impl ChargePolicy for ChargeUnlessUndone {
    fn at_head(&self, head: &response::Parts) -> ChargeDecision {
        match head.extensions.get::<UpstreamFault>() {
            Some(UpstreamFault::Unreached | UpstreamFault::Credentials) => {
                ChargeDecision::Refund(Refund::Always)
            }
            Some(
                UpstreamFault::Failed
                | UpstreamFault::Forbidden
                | UpstreamFault::RateLimited
                | UpstreamFault::Redirect
                | UpstreamFault::RequestTooLarge
                | UpstreamFault::RequestBroken,
            ) => ChargeDecision::Refund(Refund::UpToLimit),
            Some(
                UpstreamFault::Protocol
                | UpstreamFault::Timeout
                | UpstreamFault::Unreadable
                | UpstreamFault::RequestAbandoned,
            ) => ChargeDecision::Keep,
            None if head.extensions.get::<Rejected>().is_some() => {
                ChargeDecision::Refund(Refund::Always)
            }
            None if head.status.is_server_error() || grpc::is_server_failure(&head.headers) => {
                ChargeDecision::Refund(Refund::UpToLimit)
            }
            None => ChargeDecision::Keep,
        }
    }

    fn at_end(&self, end: &ResponseEnd<'_>) -> ChargeDecision {
        match end.trailers {
            Some(trailers) if end.bytes == 0 && grpc::is_server_failure(trailers) => {
                ChargeDecision::Refund(Refund::UpToLimit)
            }
            _ => ChargeDecision::Keep,
        }
    }

    fn at_error(&self, _: InnerError<'_>) -> ChargeDecision {
        ChargeDecision::Refund(Refund::UpToLimit)
    }
}
