//! The layers around all routes: request ids, client addresses, the request log, CORS, panics.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body::Body;
use ipnet::IpNet;
use tower::{Service, ServiceBuilder};
use tower_http::{
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    sensitive_headers::SetSensitiveRequestHeadersLayer,
    trace::TraceLayer,
};
use tower_quota::{openai::AnthropicErrorsLayer, server::RequestBody, store::plain_path};
use tracing::Span;

use crate::{
    catch_panic::CatchPanic,
    client_addr::insert_client_addr,
    cors::ApiCorsLayer,
    request_log::{Observers, RequestLog},
    router::Handler,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const SECRETS: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("x-trial-key"),
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-admin-token"),
];

/// Options of the outer layers.
pub(crate) struct EdgeOptions {
    pub(crate) cors: ApiCorsLayer,
    /// Networks whose `X-Forwarded-For` is trusted.
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) observers: Observers,
}

/// Wraps `service` in the outer layers. `on_panic` makes the response when it panics.
pub(crate) fn edge<S, B>(
    service: S,
    options: EdgeOptions,
    on_panic: impl Fn() -> Response<B> + Clone + Send + 'static,
) -> impl Service<
    Request<RequestBody>,
    Response = Response<impl Body<Data = Bytes, Error = B::Error> + Send + 'static>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ 'static
where
    S: Handler<B, RequestBody>,
    B: Body<Data = Bytes> + Default + Send + 'static,
    B::Error: std::fmt::Display + Send,
{
    // The span gives other log lines the request's id; the request itself is logged by `RequestLog`.
    let trace = TraceLayer::new_for_http()
        .make_span_with(span)
        .on_request(())
        .on_response(())
        .on_body_chunk(())
        .on_eos(())
        .on_failure(());
    let EdgeOptions { cors, trusted_proxies, observers } = options;
    let trusted_proxies: Arc<[IpNet]> = trusted_proxies.into();
    ServiceBuilder::new()
        .map_request(drop_invalid_id)
        .map_request(move |mut request: Request<RequestBody>| {
            insert_client_addr(&mut request, &trusted_proxies);
            request
        })
        .map_response(forbid_buffering)
        .map_response(forbid_sniffing)
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
        .layer(SetSensitiveRequestHeadersLayer::new(SECRETS))
        .layer(trace)
        .layer_fn(move |inner| RequestLog::new(inner, observers.clone()))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(cors)
        .layer(AnthropicErrorsLayer::new())
        .service(CatchPanic::new(service, on_panic))
}

/// Makes browsers trust the content type: the upstream's responses share an origin with `/admin`.
fn forbid_sniffing<B>(mut response: Response<B>) -> Response<B> {
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// Turns off nginx's response buffering for event streams.
fn forbid_buffering<B>(mut response: Response<B>) -> Response<B> {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let media_type = content_type.and_then(|value| value.to_str().ok()?.split(';').next());
    if media_type.is_some_and(|media| media.trim().eq_ignore_ascii_case("text/event-stream")) {
        response.headers_mut().insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
    response
}

/// Drops a client's request id unless it is one value of 1 to 128 visible ASCII characters and not a key:
/// ids are logged and forwarded.
fn drop_invalid_id<B>(mut request: Request<B>) -> Request<B> {
    let mut ids = request.headers().get_all(REQUEST_ID).iter();
    let is_valid = match (ids.next(), ids.next()) {
        (Some(id), None) => {
            (1..=128).contains(&id.len())
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
                && !["trial-", "sk-"]
                    .iter()
                    .any(|start| id.as_bytes().starts_with(start.as_bytes()))
                && !is_credential(request.headers(), id)
        }
        _ => false,
    };
    if !is_valid {
        request.headers_mut().remove(REQUEST_ID);
    }
    request
}

/// Returns whether `text` is also a credential of the request.
fn is_credential(headers: &HeaderMap, text: &HeaderValue) -> bool {
    SECRETS.iter().flat_map(|name| headers.get_all(name)).any(|value| {
        let words = value.as_bytes().split(|byte| *byte == b' ');
        words.into_iter().any(|word| word == text.as_bytes())
    })
}

fn span<B>(request: &Request<B>) -> Span {
    let id = request.extensions().get::<RequestId>();
    let id = id.and_then(|id| id.header_value().to_str().ok());
    let (method, path) = (request.method(), plain_path(request.uri().path()));
    tracing::info_span!("request", %method, path, id)
}
