//! The quota without issued keys: requests count on the tenant that they name, or on the address that
//! they come from.
//!
//! `cargo run --example custom_subject` prints the status of three requests of each.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use http::{Request, Response, request::Parts};
use http_body_util::Full;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    key::{KeyId, KeyRecord, Limit},
    quota::DailyQuotaLayer,
    request::RequestContext,
    store::{QuotaSubject, memory::MemoryStore},
};

type Body = Full<bytes::Bytes>;

async fn hello<B>(_: Request<B>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new("hello".into()))
}

/// Puts the tenant in the place of a key, which the layers inside count on. A real service
/// authenticates it first.
fn identify<B>(mut request: Request<B>, limit: Limit) -> Request<B> {
    let tenant = request.headers().get("x-tenant").and_then(|tenant| tenant.to_str().ok());
    if let Some(tenant) = tenant.map(KeyId::from) {
        let context = RequestContext::of(request.extensions_mut());
        context.set_key(Arc::new(KeyRecord::new(tenant, limit)));
    }
    request
}

/// Returns the client's address as the subject of a request. A real server sets the address when it
/// accepts the connection.
fn client(request: &Parts, limit: Limit) -> Option<QuotaSubject> {
    let client = request.extensions.get().and_then(RequestContext::client_addr)?;
    Some(QuotaSubject::new(KeyId::from(&*client.to_string()), limit))
}

/// Sends a request of this tenant from this address, and prints the status of the response.
async fn send<S, B>(service: S, tenant: &str, from: IpAddr) -> Result<(), BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
{
    let mut request = Request::get("/").header("x-tenant", tenant).body(Body::default())?;
    RequestContext::of(request.extensions_mut()).set_client_addr(from);
    let Ok(response) = service.oneshot(request).await;
    println!("  {tenant} from {from}: {}", response.status());
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let limit = Limit::Units(1);
    let (here, there) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let requests = [("acme", here), ("acme", there), ("globex", here)];

    println!("one request a day for each tenant");
    let by_tenant = ServiceBuilder::new()
        .map_request(move |request| identify(request, limit))
        .layer(DailyQuotaLayer::new(MemoryStore::new()))
        .service(service_fn(hello));
    for (tenant, from) in requests {
        send(by_tenant.clone(), tenant, from).await?;
    }

    println!("one request a day for each address");
    let quota = DailyQuotaLayer::new(MemoryStore::new());
    let by_address = ServiceBuilder::new()
        .layer(quota.subject(move |request| client(request, limit)))
        .service(service_fn(hello));
    for (tenant, from) in requests {
        send(by_address.clone(), tenant, from).await?;
    }
    Ok(())
}
