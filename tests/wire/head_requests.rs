//! A response to `HEAD` has no body, rejections included: over HTTP/2 its head is its end.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use crate::common::{
    ADMIN_TOKEN, GatewayCommand, Upstream, Wire, full, json_response, memory_store, noon_calendar,
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use serde_json::json;
use tokio::net::TcpStream;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    admin::{AdminTokens, admin_service, claim_service},
    auth::TrialKeyAuthLayer,
    key::{KeyId, KeyRecord, Limit, SecretKey},
    openai::{AnthropicErrorsLayer, proxy_rules},
    proxy::{RequestBody, UpstreamProxyService},
    quota::DailyQuotaLayer,
    request::RequestContext,
    usage::usage_service,
};

/// The status of each response, and whether its stream ended with its head.
#[expect(clippy::disallowed_methods, reason = "one task for the connection")]
async fn over_http2(
    gateway: SocketAddr,
    requests: &[(String, HeaderMap)],
) -> Vec<(String, u16, bool)> {
    let socket = TcpStream::connect(gateway).await.unwrap();
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut seen = Vec::new();
    for (path, headers) in requests {
        let mut request = Request::head(format!("http://{gateway}{path}")).body(()).unwrap();
        request.headers_mut().extend(headers.clone());
        client = client.ready().await.unwrap();
        let response = client.send_request(request, true).unwrap().0.await.unwrap();
        seen.push((path.clone(), response.status().as_u16(), response.body().is_end_stream()));
    }
    assert!(!connection.is_finished());
    seen
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

#[tokio::test]
async fn no_response_of_the_gateway_to_head_has_a_body() {
    let upstream = Upstream::start(|request| {
        let status = request.uri().path().rsplit('/').next().unwrap().parse().unwrap_or(200);
        let mut response = json_response(r#"{"some":"thing"}"#);
        *response.status_mut() = status.try_into().unwrap();
        if request.uri().path().contains("stream") {
            response = Response::builder().status(status).body(full("data: 1\n\n")).unwrap();
            response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
        }
        response
    })
    .await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 0})).await;
    let used_up = gateway.create_key(json!({"daily_limit": 1})).await;
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    assert_eq!(wire.post(&used_up, "{}").await.unwrap().0, 200);
    let none = HeaderMap::new();
    let known = headers(&[("x-api-key", &key)]);
    let anthropic = headers(&[("x-api-key", "no"), ("anthropic-version", "2023-06-01")]);
    let admin = headers(&[("x-admin-token", ADMIN_TOKEN)]);
    let paths = [
        ("/", &none),
        ("/healthz", &none),
        ("/readyz", &none),
        ("/nowhere", &none),
        ("/metrics", &none),
        ("/metrics", &admin),
        ("/v1/models", &none),
        ("/usage", &none),
        ("/usage", &known),
        ("/admin", &none),
        ("/admin/keys", &none),
        ("/admin/keys", &admin),
        ("/admin/keys/none", &admin),
        ("/admin/nowhere", &admin),
        ("/claim", &none),
        ("/v1/x", &none),
        ("/v1/x", &headers(&[("x-api-key", "trial-nobody")])),
        ("/v1/messages", &anthropic),
        ("/v1/x", &headers(&[("x-api-key", &used_up)])),
        ("/v1/%2e%2e/x", &known),
        ("/v1/x", &known),
        ("/v1/stream", &known),
        ("/v1/204", &known),
        ("/v1/304", &known),
        ("/v1/400", &known),
        ("/v1/402", &known),
        ("/v1/404", &known),
        ("/v1/429", &known),
        ("/v1/500", &known),
        ("/v1/stream/500", &known),
    ];
    let requests: Vec<_> = paths.map(|(path, headers)| (path.to_owned(), headers.clone())).into();
    for (path, status, ends) in over_http2(gateway.address(), &requests).await {
        assert!(ends, "{path}: {status}");
    }
    // Over HTTP/1.1 the next response follows at once.
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    for (path, headers) in &requests {
        let lines =
            headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
        let lines: String = lines.collect();
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        wire.send(&head).await.unwrap();
        if wire.head().await.expect(path).closes {
            wire = Wire::connect(gateway.address()).await.unwrap();
        }
    }
}

/// Whether a service's response to `HEAD` is over with its head, and its length known.
fn assert_bodiless<B: Body>(name: &str, response: &Response<B>) {
    assert!(response.body().is_end_stream(), "{name}: {}", response.status());
    let length = response.headers().get("content-length").map(|value| value.to_str().unwrap());
    assert!(length.is_some_and(|length| length != "0"), "{name}: {length:?}");
}

#[tokio::test]
async fn no_layers_own_response_to_head_has_a_body() {
    let store = memory_store();
    let key = SecretKey::parse("trial-key-manual-123").unwrap();
    let record = KeyRecord::new(KeyId::from("alice"), Limit::Units(1));
    store.insert(&key, record.clone()).unwrap();
    let request = |path: &str| {
        let request = Request::head(path).header("host", "a");
        request.body(Empty::<Bytes>::new()).unwrap()
    };
    let inner = service_fn(async |_| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"inner"))))
    });

    let auth = TrialKeyAuthLayer::new(store.clone());
    let service = ServiceBuilder::new().layer(auth).service(inner);
    assert_bodiless("auth", &service.clone().oneshot(request("/")).await.unwrap());
    let mut unknown = request("/");
    unknown.headers_mut().insert("x-api-key", "trial-nobody".parse().unwrap());
    assert_bodiless("auth, unknown key", &service.oneshot(unknown).await.unwrap());

    let quota = ServiceBuilder::new().layer(DailyQuotaLayer::new(store.clone())).service(inner);
    assert_bodiless("quota, no subject", &quota.clone().oneshot(request("/")).await.unwrap());
    for is_used_up in [false, true] {
        let mut request = request("/");
        RequestContext::of(request.extensions_mut()).set_key(Arc::new(record.clone()));
        let response = quota.clone().oneshot(request).await.unwrap();
        match is_used_up {
            true => assert_bodiless("quota", &response),
            false => assert_eq!(response.status(), 200),
        }
    }

    let broken = service_fn(async |_: Request<RequestBody<Empty<Bytes>>>| {
        Err::<Response<Full<Bytes>>, _>(std::io::Error::other("no upstream"))
    });
    let failing = service_fn(async |_: Request<RequestBody<Empty<Bytes>>>| {
        let response = Response::builder().status(500).body(Full::<Bytes>::default());
        Ok::<_, Infallible>(response.unwrap())
    });
    let base = || "http://upstream.example".parse().unwrap();
    let proxy = UpstreamProxyService::new(broken, base());
    assert_bodiless("proxy", &proxy.clone().oneshot(request("/")).await.unwrap());
    assert_bodiless("proxy, bad path", &proxy.oneshot(request("/%2e%2e")).await.unwrap());
    let proxy = UpstreamProxyService::new(failing, base()).rules(proxy_rules());
    assert_bodiless("proxy, 500", &proxy.oneshot(request("/")).await.unwrap());

    let usage = usage_service(store.clone(), noon_calendar());
    assert_bodiless("usage", &usage.oneshot(request("/usage")).await.unwrap());
    let claim = claim_service(store.clone());
    assert_bodiless("claim", &claim.oneshot(request("/claim")).await.unwrap());
    let tokens = AdminTokens::parse("test-admin-token-0123456789").unwrap();
    let admin = admin_service(store, tokens);
    assert_bodiless("admin", &admin.clone().oneshot(request("/admin/keys")).await.unwrap());
    assert_bodiless("admin page", &admin.clone().oneshot(request("/admin")).await.unwrap());
    let outside = ServiceBuilder::new().layer(AnthropicErrorsLayer::new()).service(admin);
    let mut request = request("/admin/keys");
    request.headers_mut().insert("anthropic-version", "1".parse().unwrap());
    let response = outside.oneshot(request).await.unwrap();
    assert!(response.body().is_end_stream());
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
}
