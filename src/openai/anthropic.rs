use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use pin_project_lite::pin_project;
use serde::Serialize;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    body,
    error::{Rejected, json},
};

/// Header that every client of Anthropic's API sends.
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Layer that applies [`AnthropicErrors`]: rejections have the error object that both Anthropic's and
/// OpenAI's clients read, if the request is one of Anthropic's API.
///
/// # Rules
///
/// - A request is one of Anthropic's API if its path is `/messages` or below, with or without `/v1`,
///   or if it has an `anthropic-version`.
/// - Only responses with [`Rejected`] in their extensions change; an upstream's stay as they are.
/// - `type` depends on the status, as Anthropic documents it; `code` and `policy` stay.
/// - `request_id` is the request's `x-request-id`, which a layer outside this one sets.
/// - A rejection of `HEAD` has no body.
///
/// The layer stands outside of all layers that reject, however these render.
///
/// ```
/// use std::convert::Infallible;
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::{BodyExt, Full};
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_quota::{error::Rejection, openai::{AnthropicErrorsLayer, OpenAiErrors}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let exhausted = service_fn(|request: Request<()>| async move {
///     let status = StatusCode::TOO_MANY_REQUESTS;
///     let rejection = Rejection::permanent(status, "quota", "insufficient_quota", "Used up.");
///     Ok::<_, Infallible>(rejection.policy("daily").render(&OpenAiErrors, &request).map(Full::new))
/// });
/// let service = AnthropicErrorsLayer::new().layer(exhausted);
/// let request = Request::post("/v1/messages").header("x-request-id", "r1").body(()).unwrap();
/// let body = service.oneshot(request).await.unwrap().into_body().collect().await.unwrap();
/// assert_eq!(
///     body.to_bytes(),
///     r#"{"type":"error","error":{"type":"rate_limit_error","message":"Used up.","param":null,"code":"insufficient_quota","policy":"daily"},"request_id":"r1"}"#,
/// );
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct AnthropicErrorsLayer(());

impl AnthropicErrorsLayer {
    /// Creates the layer.
    pub fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for AnthropicErrorsLayer {
    type Service = AnthropicErrors<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AnthropicErrors { inner }
    }
}

/// Middleware that gives rejections Anthropic's error object.
///
/// See [`AnthropicErrorsLayer`] for its rules.
#[derive(Clone, Copy, Debug)]
pub struct AnthropicErrors<S> {
    inner: S,
}

impl<S> AnthropicErrors<S> {
    /// Creates the middleware around `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }

    inner_accessors!(S);
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for AnthropicErrors<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<AnthropicErrorsBody<ResBody>>;
    type Error = S::Error;
    type Future = AnthropicErrorsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let rejection = is_anthropic(&request).then(|| AnthropicRejection {
            is_head: request.method() == Method::HEAD,
            request_id: request.headers().get(REQUEST_ID).cloned(),
        });
        AnthropicErrorsFuture { inner: self.inner.call(request), rejection }
    }
}

/// Returns whether this request's client reads Anthropic's errors.
fn is_anthropic<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let below = path.strip_prefix("/messages");
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        || request.headers().contains_key(ANTHROPIC_VERSION)
}

/// What a rejection needs of a request of Anthropic's API.
struct AnthropicRejection {
    is_head: bool,
    request_id: Option<HeaderValue>,
}

pin_project! {
    /// Response future of [`AnthropicErrors`].
    pub struct AnthropicErrorsFuture<F> {
        #[pin]
        inner: F,
        rejection: Option<AnthropicRejection>,
    }
}

impl<F, B, E> Future for AnthropicErrorsFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<AnthropicErrorsBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let rejected = response.extensions().get::<Rejected>();
        let body = match (&*this.rejection, rejected) {
            (Some(rejection), Some(rejected)) => rejection.render(response.status(), rejected),
            _ => {
                let inner = |body| AnthropicErrorsBody { inner: body::ResponseBody::inner(body) };
                return Poll::Ready(Ok(response.map(inner)));
            }
        };
        let mut response =
            response.map(|_| AnthropicErrorsBody { inner: body::ResponseBody::full(body) });
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Poll::Ready(Ok(response))
    }
}

opaque_body! {
    /// Response body of [`AnthropicErrors`]: the inner service's, or a rejection's.
    pub struct AnthropicErrorsBody<B>(body::ResponseBody<B>) where B::Data: From<Bytes>;
}

/// Returns an empty body.
impl<B> Default for AnthropicErrorsBody<B> {
    fn default() -> Self {
        Self { inner: body::ResponseBody::default() }
    }
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    r#type: &'static str,
    error: ErrorFields<'a>,
    request_id: Option<&'a str>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    r#type: &'static str,
    message: &'a str,
    param: Option<&'a str>,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
}

impl AnthropicRejection {
    fn render(&self, status: StatusCode, rejected: &Rejected) -> Bytes {
        if self.is_head {
            return Bytes::new();
        }
        let request_id = self.request_id.as_ref().and_then(|id| id.to_str().ok());
        let error = ErrorFields {
            r#type: kind(status),
            message: &rejected.message,
            param: None,
            code: rejected.code,
            policy: rejected.policy.as_deref(),
        };
        json(&ErrorObject { r#type: "error", error, request_id })
    }
}

/// Returns Anthropic's error type for this status.
fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

impl<F> fmt::Debug for AnthropicErrorsFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnthropicErrorsFuture")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anthropic_requests_are_known_by_path_or_version() {
        let is_anthropic = |path: &str, header: &str| {
            let request = Request::post(path).header(header, "2023-06-01");
            is_anthropic(&request.body(()).unwrap())
        };
        for path in ["/v1/messages", "/messages", "/v1/messages?beta=true", "/messages/batches/x"] {
            assert!(is_anthropic(path, "x"), "{path}");
        }
        for path in ["/v1/chat/completions", "/v1/threads/t/messages", "/v1/messagesx", "/v1"] {
            assert!(!is_anthropic(path, "x"), "{path}");
            assert!(is_anthropic(path, "anthropic-version"), "{path}");
        }
    }

    #[test]
    fn error_types_are_those_of_anthropic() {
        let kinds = [400, 402, 405, 431, 500, 529].map(|code| {
            let status = StatusCode::from_u16(code).unwrap();
            kind(status)
        });
        let invalid = "invalid_request_error";
        let expected = [invalid, "billing_error", invalid, invalid, "api_error", "api_error"];
        assert_eq!(kinds, expected);
    }
}
