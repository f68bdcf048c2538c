//! What stands around the admin service.

use bytes::Bytes;
use http::{Request, Response, Uri, uri::PathAndQuery};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_http::csrf::{CsrfLayer, ProtectionError};
use tower_quota::{
    admin::{AdminService, ClientAddr},
    error::Rejected,
    openai::OpenAiErrors,
    store::AdminStore,
};

use crate::{
    refusals,
    router::{GatewayRequest, Handler},
};

type AdminBody = UnsyncBoxBody<Bytes, BoxError>;

/// The service, which no page of another site can make a reader's browser change anything on. It
/// judges by `Sec-Fetch-Site`, and by `Origin` and `Host`, so a proxy must pass these on unchanged;
/// what is no browser sends none of them and passes.
pub(crate) fn guarded<S: AdminStore + Clone>(
    admin: AdminService<S, OpenAiErrors>,
    max_body_bytes: usize,
) -> impl Handler<AdminBody> {
    let outside =
        [refusals::cross_site(), refusals::invalid_path(), refusals::too_large(max_body_bytes)];
    let admin = outside.into_iter().fold(admin, AdminService::refused_outside);
    let notes = admin.clone();
    let guarded = ServiceBuilder::new()
        .map_request(hide_path)
        .layer(CsrfLayer::new().with_rejection_response(cross_site))
        .map_request(show_path)
        .map_response(boxed)
        .service(admin);
    service_fn(move |request: GatewayRequest| {
        let (guarded, notes) = (guarded.clone(), notes.clone());
        let source = request.extensions().get().map(|ClientAddr(ip)| *ip);
        async move {
            let response = guarded.oneshot(request).await?;
            match response.extensions().get() {
                Some(Rejected { code, .. }) if *code == refusals::CROSS_SITE => {
                    notes.note_refused(code, source).await;
                }
                _ => {}
            }
            Ok(response)
        }
    })
}

/// The path that a request has come with.
#[derive(Clone)]
struct Hidden(Option<PathAndQuery>);

/// The layer logs paths, and a key may stand in one.
fn hide_path<B>(mut request: Request<B>) -> Request<B> {
    let hidden = Hidden(replace_path(&mut request, Some(PathAndQuery::from_static("/admin"))));
    request.extensions_mut().insert(hidden);
    request
}

fn show_path<B>(mut request: Request<B>) -> Request<B> {
    if let Some(Hidden(path)) = request.extensions_mut().remove() {
        replace_path(&mut request, path);
    }
    request
}

/// Puts another path and query into the request's address, and returns those that were there.
fn replace_path<B>(request: &mut Request<B>, path: Option<PathAndQuery>) -> Option<PathAndQuery> {
    let mut parts = request.uri().clone().into_parts();
    let before = std::mem::replace(&mut parts.path_and_query, path);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    before
}

fn cross_site(_: ProtectionError) -> Response<AdminBody> {
    boxed(refusals::render(refusals::cross_site()).map(Full::new))
}

fn boxed<B>(response: Response<B>) -> Response<AdminBody>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}
