//! CSRF protection for the admin service.

use http::{HeaderValue, Request, Response, Uri, header, uri::PathAndQuery};
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_http::csrf::{ConfigError, CsrfLayer, ProtectionError};
use tower_quota::{
    admin::{AdminService, store::AdminStore},
    request::RequestContext,
};

use crate::{
    rejections,
    router::{GatewayRequest, SideBody, SideService, boxed},
};

/// Wraps the service so that pages of other sites cannot change anything through an operator's browser.
/// The check uses `Sec-Fetch-Site`, `Origin` and `Host`, so a proxy must forward these unchanged, or
/// `public_url` must be the page's origin. Clients that are not browsers send none of them and pass.
pub(crate) fn guarded<S: AdminStore + Clone>(
    admin: AdminService<S>,
    max_body_bytes: usize,
    public_url: Option<&str>,
) -> Result<SideService, ConfigError> {
    let outside = [
        rejections::cross_site("https://other.example", "gateway.example"),
        rejections::invalid_path(),
        rejections::too_large(max_body_bytes),
    ];
    let admin = outside.into_iter().fold(admin, AdminService::describe_rejection);
    let notes = admin.clone();
    let csrf = match public_url {
        Some(url) => CsrfLayer::new().add_trusted_origin(url)?,
        None => CsrfLayer::new(),
    };
    let guarded = ServiceBuilder::new()
        .map_request(hide_path)
        .layer(csrf.with_rejection_response(placeholder))
        .map_request(restore_path)
        .map_response(boxed)
        .service(admin);
    Ok(SideService::new(service_fn(move |request: GatewayRequest| {
        let (guarded, notes) = (guarded.clone(), notes.clone());
        let source = request.extensions().get().and_then(RequestContext::client_addr);
        let (from, to) = (text(request.headers().get(header::ORIGIN)), host(&request));
        async move {
            let response = guarded.oneshot(request).await?;
            if response.extensions().get::<ProtectionError>().is_none() {
                return Ok(response);
            }
            let rejection = rejections::cross_site(&from, &to);
            notes.audit_rejection(rejection.code, source).await;
            Ok(boxed(rejections::render(rejection).map(Full::new)))
        }
    })))
}

/// Returns the host that a request was sent to.
fn host<B>(request: &Request<B>) -> String {
    match request.uri().authority() {
        Some(authority) => authority.as_str().to_owned(),
        None => text(request.headers().get(header::HOST)),
    }
}

/// Returns a header's value for a message.
fn text(value: Option<&HeaderValue>) -> String {
    const MAX_CHARS: usize = 100;
    let text = value.map_or("none".into(), |value| String::from_utf8_lossy(value.as_bytes()));
    text.chars().take(MAX_CHARS).collect()
}

/// The original path and query of a request.
#[derive(Clone)]
struct OriginalPath(Option<PathAndQuery>);

/// Hides the path from `CsrfLayer`, which logs it: it may contain a key.
fn hide_path<B>(mut request: Request<B>) -> Request<B> {
    let path = replace_path(&mut request, Some(PathAndQuery::from_static("/admin")));
    request.extensions_mut().insert(OriginalPath(path));
    request
}

fn restore_path<B>(mut request: Request<B>) -> Request<B> {
    if let Some(OriginalPath(path)) = request.extensions_mut().remove() {
        replace_path(&mut request, path);
    }
    request
}

/// Replaces the request's path and query, and returns the previous ones.
fn replace_path<B>(request: &mut Request<B>, path: Option<PathAndQuery>) -> Option<PathAndQuery> {
    let mut parts = request.uri().clone().into_parts();
    let previous = std::mem::replace(&mut parts.path_and_query, path);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    previous
}

/// Returns a placeholder: the layer puts its error into the extensions, and the message needs the
/// request's headers.
fn placeholder(_: ProtectionError) -> Response<SideBody> {
    Response::default()
}
