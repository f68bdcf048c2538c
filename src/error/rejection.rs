use std::{any::Any, borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use http::{
    Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
    header::HeaderName, request,
};

use super::{catalog, json::JsonString};

/// A rejected request, before a [`Reject`] renderer gives the response its form.
///
/// [`permanent`](Self::permanent) and [`transient`](Self::transient) differ in whether sending the
/// same request again can help.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rejection {
    /// The response status.
    pub status: StatusCode,
    /// The class of the error, for example `invalid_request_error`.
    pub kind: &'static str,
    /// The stable name of this error, for example `invalid_api_key`.
    pub code: &'static str,
    /// One sentence for a person. Never holds a secret or an inner error's text.
    pub message: Cow<'static, str>,
    /// Whether the same request may succeed when it is sent again.
    pub retry: Retry,
    /// Additional headers of the response, for example `WWW-Authenticate`.
    pub headers: HeaderMap,
    /// The name of the limit for which the request is rejected, for example `daily`, if it is for one.
    pub policy: Option<Cow<'static, str>>,
    pub(super) reason: Option<Arc<dyn Any + Send + Sync>>,
}

/// Whether a rejected request may succeed when it is sent again unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It cannot succeed; a client that retries wastes its time and the gateway's.
    Never,
    /// It may succeed, after `Retry-After` if that is present.
    Later,
}

impl Rejection {
    /// Creates a rejection that the same request always meets: a wrong key, a malformed body.
    pub fn permanent(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            kind,
            code,
            message: message.into(),
            retry: Retry::Never,
            headers: HeaderMap::new(),
            policy: None,
            reason: None,
        }
    }

    /// Creates a rejection whose cause passes by itself: a busy store, a limit on requests in flight.
    pub fn transient(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { retry: Retry::Later, ..Self::permanent(status, kind, code, message) }
    }

    /// Creates a 405 with this `Allow` header.
    pub fn method_not_allowed(allow: HeaderValue) -> Self {
        catalog::METHOD_NOT_ALLOWED
            .with(&[("allow", &allow.to_str().unwrap_or_default())])
            .header(header::ALLOW, allow)
    }

    /// Sets a header of the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets the name of the limit for which the request is rejected. JSON of errors has it as the member `policy`.
    ///
    /// ```
    /// use http::Request;
    /// use tower_quota::error::{ProblemJson, catalog};
    ///
    /// let rejection = catalog::RATE_LIMIT_EXCEEDED.with_message("Too fast.").policy("minute");
    /// let response = rejection.render(&ProblemJson, &Request::new(()));
    /// assert_eq!(
    ///     response.body(),
    ///     r#"{"title":"Too Many Requests","status":429,"detail":"Too fast.","code":"rate_limit_exceeded","policy":"minute"}"#,
    /// );
    /// ```
    #[must_use]
    pub fn policy(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self { policy: Some(name.into()), ..self }
    }

    /// Sets the typed reason, which a renderer reads with [`reason`](Self::reason).
    #[must_use]
    pub fn with_reason(mut self, reason: impl Any + Send + Sync) -> Self {
        self.reason = Some(Arc::new(reason));
        self
    }

    /// Returns the typed reason, if it has this type.
    ///
    /// | rejected by | type |
    /// |---|---|
    /// | `TrialKeyAuthLayer` | `auth::AuthRejection` |
    /// | `DailyQuotaLayer` | `quota::QuotaRejection` |
    /// | `InFlightLimitLayer`, `RateLimitLayer` | `quota::LimitRejection` |
    /// | `UpstreamProxyService`, if the upstream gave no response to forward | [`UpstreamFault`](super::UpstreamFault) |
    /// | a service, because its store failed | [`StoreError`](super::StoreError) |
    pub fn reason<T: Any>(&self) -> Option<&T> {
        self.reason.as_deref()?.downcast_ref()
    }

    /// Renders the response to `request`, which is marked with [`Rejected`] whatever the renderer does.
    /// A handler of axum returns it with `.map(axum::body::Body::from)`.
    pub fn render<'a>(
        self,
        renderer: &(impl Reject + ?Sized),
        request: impl Into<RejectedRequest<'a>>,
    ) -> Response<Bytes> {
        let Self { kind, code, ref message, ref policy, .. } = self;
        let rejected = Rejected { kind, code, message: message.clone(), policy: policy.clone() };
        let mut response = renderer.reject(self, request.into());
        // A renderer that passes a rejection with another message to the next renderer has marked it.
        response.extensions_mut().get_or_insert(rejected);
        response
    }

    /// Creates a response with this rejection's status and headers around a rendered body. It is
    /// marked `Cache-Control: no-store`.
    pub fn into_response(self, body: Bytes, content_type: HeaderValue) -> Response<Bytes> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The reason of a rejection, in the extensions of every response that a layer of this crate made
/// itself.
///
/// An outer layer may use it to give such a response another form, as
/// `openai::AnthropicErrorsLayer` does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// The [`Rejection::kind`] of the response.
    pub kind: &'static str,
    /// The [`Rejection::code`] of the response.
    pub code: &'static str,
    /// The [`Rejection::message`] of the response.
    pub message: Cow<'static, str>,
    /// The [`Rejection::policy`] of the response.
    pub policy: Option<Cow<'static, str>>,
}

/// The request that is rejected, as far as it is still there.
///
/// It is made from a [`Request`] or its [`Parts`](request::Parts). A credential that a layer has read
/// is no longer in it.
#[derive(Clone, Copy)]
pub struct RejectedRequest<'a> {
    method: &'a Method,
    target: Option<(&'a Uri, &'a HeaderMap)>,
    extensions: &'a Extensions,
}

impl<'a> RejectedRequest<'a> {
    /// Creates the value for a request that was passed to the inner service, with its URI and its headers.
    pub fn forwarded(method: &'a Method, extensions: &'a Extensions) -> Self {
        Self { method, target: None, extensions }
    }

    /// Returns the method.
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// Returns the URI. `None` if the request was passed to the inner service before it was rejected,
    /// because a store or an upstream failed.
    pub fn uri(&self) -> Option<&'a Uri> {
        self.target.map(|(uri, _)| uri)
    }

    /// Returns the headers. `None` if there is no [`uri`](Self::uri), either.
    pub fn headers(&self) -> Option<&'a HeaderMap> {
        self.target.map(|(_, headers)| headers)
    }

    /// Returns the extensions, with the request's [`RequestContext`](crate::request::RequestContext). If
    /// the request was passed to the inner service, the others may be missing.
    pub fn extensions(&self) -> &'a Extensions {
        self.extensions
    }
}

impl<'a, B> From<&'a Request<B>> for RejectedRequest<'a> {
    fn from(request: &'a Request<B>) -> Self {
        let target = Some((request.uri(), request.headers()));
        Self { method: request.method(), target, extensions: request.extensions() }
    }
}

impl<'a> From<&'a request::Parts> for RejectedRequest<'a> {
    fn from(head: &'a request::Parts) -> Self {
        let target = Some((&head.uri, &head.headers));
        Self { method: &head.method, target, extensions: &head.extensions }
    }
}

/// Shows the method alone: URI and headers may hold secrets.
impl fmt::Debug for RejectedRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectedRequest").field("method", &self.method).finish_non_exhaustive()
    }
}

/// Renders a [`Rejection`] as a response.
///
/// The default is [`ProblemJson`]; [`GrpcStatus`](super::GrpcStatus) is for servers of gRPC,
/// `openai::OpenAiErrors` writes the error object that OpenAI clients read, and [`reject_fn`] makes a
/// renderer of a closure.
///
/// ```
/// use bytes::Bytes;
/// use http::{Response, header};
/// use tower_quota::error::{ProblemJson, Reject, RejectedRequest, Rejection};
///
/// /// Sends browsers to the sign-in page, and responds to all others with a problem.
/// struct SignIn;
///
/// impl Reject for SignIn {
///     fn reject(&self, rejection: Rejection, request: RejectedRequest<'_>) -> Response<Bytes> {
///         let accept = request.headers().and_then(|headers| headers.get(header::ACCEPT));
///         let is_browser = accept.is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"));
///         if rejection.status != 401 || !is_browser {
///             return rejection.render(&ProblemJson, request);
///         }
///         let mut response = Response::new(Bytes::new());
///         *response.status_mut() = http::StatusCode::SEE_OTHER;
///         response.headers_mut().insert(header::LOCATION, http::HeaderValue::from_static("/sign-in"));
///         response
///     }
/// }
/// ```
pub trait Reject: Send + Sync + 'static {
    /// Returns the response for this rejection of `request`.
    fn reject(&self, rejection: Rejection, request: RejectedRequest<'_>) -> Response<Bytes>;
}

/// Returns a renderer that calls `f`.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use tower_quota::error::{catalog, reject_fn};
///
/// let plain = reject_fn(|rejection, request| {
///     let mut response = Response::new(Bytes::from(format!("{}: {}", request.method(), rejection.message)));
///     *response.status_mut() = rejection.status;
///     response
/// });
/// let response = catalog::KEY_DISABLED.rejection().render(&plain, &Request::new(()));
/// assert_eq!(response.status(), StatusCode::FORBIDDEN);
/// assert_eq!(response.body(), "GET: This API key is disabled.");
/// ```
pub fn reject_fn<F>(f: F) -> RejectFn<F>
where
    F: Fn(Rejection, RejectedRequest<'_>) -> Response<Bytes> + Send + Sync + 'static,
{
    RejectFn(f)
}

/// Renderer that [`reject_fn`] returns.
#[derive(Clone, Copy)]
pub struct RejectFn<F>(F);

impl<F> Reject for RejectFn<F>
where
    F: Fn(Rejection, RejectedRequest<'_>) -> Response<Bytes> + Send + Sync + 'static,
{
    fn reject(&self, rejection: Rejection, request: RejectedRequest<'_>) -> Response<Bytes> {
        (self.0)(rejection, request)
    }
}

impl<F> fmt::Debug for RejectFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RejectFn")
    }
}

/// Renders rejections as `application/problem+json` (RFC 9457).
#[derive(Clone, Copy, Debug, Default)]
pub struct ProblemJson;

impl Reject for ProblemJson {
    fn reject(&self, rejection: Rejection, _: RejectedRequest<'_>) -> Response<Bytes> {
        let Rejection { status, kind, code, ref message, ref policy, .. } = rejection;
        let title = JsonString(status.canonical_reason().unwrap_or(kind));
        let (status, detail, code) = (status.as_u16(), JsonString(message), JsonString(code));
        let policy = policy.as_ref().map(|name| format!(r#","policy":{}"#, JsonString(name)));
        let policy = policy.unwrap_or_default();
        let body = format!(
            r#"{{"title":{title},"status":{status},"detail":{detail},"code":{code}{policy}}}"#
        );
        let content_type = HeaderValue::from_static("application/problem+json");
        rejection.into_response(body.into(), content_type)
    }
}
