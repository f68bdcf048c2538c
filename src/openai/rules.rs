use http::{HeaderName, header, response::Parts};

use crate::{
    error::UpstreamFault,
    proxy::{HeaderRules, ProxyRules},
};

/// Returns the rules for a sponsored upstream with an OpenAI-compatible API.
///
/// Removed from requests is everything that identifies the client: credentials in any of the usual
/// headers and copies of them elsewhere, cookies, organization and project, forwarding headers.
/// Removed from responses is everything that is the sponsor's own: cookies, organization and project,
/// rate limits, retry advice, and headers for browsers or front servers that describe the upstream's
/// site, which is the gateway's here. Problems of the sponsor's account are never shown as the holder's:
///
/// | upstream | fault | client |
/// |---|---|---|
/// | 401, 402 | [`Credentials`](UpstreamFault::Credentials) | 502 |
/// | 403 | [`Forbidden`](UpstreamFault::Forbidden) | 502 |
/// | 429 | [`RateLimited`](UpstreamFault::RateLimited) | 503, its `Retry-After` |
/// | 3xx | [`Redirect`](UpstreamFault::Redirect) | 502 |
/// | 101 | [`Protocol`](UpstreamFault::Protocol) | 502 |
/// | 5xx | [`Failed`](UpstreamFault::Failed) | the same, its `Retry-After` |
///
/// Every other response passes through. Requests have `Accept-Encoding: identity`, so that usage and
/// errors can be read whatever the client accepts.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use tower::{ServiceExt, service_fn};
/// use tower_quota::{
///     error::UpstreamFault,
///     openai::{OpenAiErrors, proxy_rules},
///     proxy::{RequestBody, UpstreamProxyService},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let transport = service_fn(|_: Request<RequestBody<Full<Bytes>>>| async {
///     let mut response = Response::new(Full::new(Bytes::from("sponsor's key expired")));
///     *response.status_mut() = StatusCode::UNAUTHORIZED;
///     Ok::<_, std::io::Error>(response)
/// });
/// let proxy = UpstreamProxyService::new(transport, "https://api.example.com".parse()?)
///     .rules(proxy_rules())
///     .reject(OpenAiErrors);
///
/// let request = Request::get("/v1/models").header("host", "gateway").body(Full::default())?;
/// let response = proxy.oneshot(request).await?;
/// assert_eq!(response.status(), 502);
/// assert_eq!(response.extensions().get(), Some(&UpstreamFault::Credentials));
/// # Ok(())
/// # }
/// ```
pub fn proxy_rules() -> ProxyRules {
    ProxyRules::new()
        .request_headers(request_headers())
        .response_headers(response_headers())
        .identity_only()
        .replace(classify)
}

fn request_headers() -> HeaderRules {
    HeaderRules::without_forwarding()
        .without_credential(header::AUTHORIZATION)
        .without_credential(header::PROXY_AUTHORIZATION)
        .without(header::COOKIE)
        .without_credential(HeaderName::from_static("x-trial-key"))
        .without_credential(HeaderName::from_static("x-api-key"))
        .without_credential(HeaderName::from_static("x-admin-token"))
        .without_credential(HeaderName::from_static("api-key"))
        .without(HeaderName::from_static("openai-organization"))
        .without(HeaderName::from_static("openai-project"))
        .without(HeaderName::from_static("x-http-method-override"))
        .without(HeaderName::from_static("x-original-url"))
        .without(HeaderName::from_static("x-rewrite-url"))
}

fn response_headers() -> HeaderRules {
    HeaderRules::new()
        .without(header::SET_COOKIE)
        .without(header::SERVER)
        .without(header::VIA)
        .without(header::ALT_SVC)
        .without(header::LOCATION)
        .without(header::STRICT_TRANSPORT_SECURITY)
        .without(header::REFRESH)
        .without(HeaderName::from_static("accept-ch"))
        .without(HeaderName::from_static("clear-site-data"))
        .without(HeaderName::from_static("critical-ch"))
        .without(HeaderName::from_static("expect-ct"))
        .without(HeaderName::from_static("nel"))
        .without(HeaderName::from_static("report-to"))
        .without(HeaderName::from_static("reporting-endpoints"))
        .without(HeaderName::from_static("service-worker-allowed"))
        .without(HeaderName::from_static("set-cookie2"))
        .without(HeaderName::from_static("x-should-retry"))
        .without(HeaderName::from_static("x-sendfile"))
        .without_prefix("x-accel-")
        .without_prefix("access-control-")
        .without_prefix("public-key-pins")
        .without(HeaderName::from_static("openai-organization"))
        .without(HeaderName::from_static("openai-project"))
        .without_prefix("x-ratelimit-")
        .without_prefix("ratelimit")
}

fn classify(head: &Parts) -> Option<UpstreamFault> {
    match head.status.as_u16() {
        300..=399 => Some(UpstreamFault::Redirect),
        401 | 402 => Some(UpstreamFault::Credentials),
        403 => Some(UpstreamFault::Forbidden),
        429 => Some(UpstreamFault::RateLimited),
        500.. => Some(UpstreamFault::Failed),
        _ => None,
    }
}
