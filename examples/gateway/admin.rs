//! What stands around the admin service.

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tower::{BoxError, ServiceBuilder};
use tower_http::csrf::{CsrfLayer, ProtectionError};
use tower_quota::{admin::AdminService, openai::OpenAiErrors, store::AdminStore};

use crate::{refusals, router::Handler};

type AdminBody = UnsyncBoxBody<Bytes, BoxError>;

/// The service, which no page of another site can make a reader's browser change anything on. It
/// judges by `Sec-Fetch-Site`, and by `Origin` and `Host`, so a proxy must pass these on unchanged;
/// what is no browser sends none of them and passes.
pub(crate) fn guarded<S: AdminStore + Clone>(
    admin: AdminService<S>,
    max_body_bytes: usize,
) -> impl Handler<AdminBody> {
    let outside =
        [refusals::cross_site(), refusals::invalid_path(), refusals::too_large(max_body_bytes)];
    let admin = outside.into_iter().fold(admin.reject(OpenAiErrors), AdminService::refused_outside);
    let cross_site = |_: ProtectionError| {
        refusals::render(refusals::cross_site()).map(|body| boxed(Full::new(body)))
    };
    ServiceBuilder::new()
        .layer(CsrfLayer::new().with_rejection_response(cross_site))
        .map_response(|response: Response<_>| response.map(boxed))
        .service(admin)
}

fn boxed<B>(body: B) -> AdminBody
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    body.map_err(Into::into).boxed_unsync()
}
