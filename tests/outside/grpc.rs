//! A gRPC server of tonic's behind the layers, with a client of tonic's, over a socket.

use http::StatusCode;
use tokio_stream::Iter;
use tonic::{
    Code, Request, Response, Status,
    codec::CompressionEncoding::Gzip,
    metadata::MetadataMap,
    service::LayerExt,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tower::ServiceBuilder;
use tower_quota::{
    auth::TrialKeyAuthLayer,
    error::{GrpcStatus, Rejected, Rejection},
    quota::DailyQuotaLayer,
    request::RequestContext,
    store::{RequestOutcome, UsageEvent},
    usage::UsageRecorderLayer,
};

use super::{Events, KEY, store};

/// A service whose calls end as the name in the request says.
struct Named;

/// Messages, and then perhaps a failure.
type Messages = Iter<std::vec::IntoIter<Result<HealthCheckResponse, Status>>>;

fn message() -> HealthCheckResponse {
    HealthCheckResponse { status: ServingStatus::Serving.into() }
}

#[tonic::async_trait]
impl Health for Named {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        assert!(!request.metadata().contains_key("authorization"), "scrubbed");
        match request.get_ref().service.as_str() {
            "internal" => Err(Status::internal("broken")),
            "not found" => Err(Status::not_found("no such service")),
            "free" => {
                let context = request.extensions().get::<RequestContext>().unwrap();
                context.reservation().unwrap().settle(0);
                Err(Status::resource_exhausted("busy"))
            }
            _ => Ok(Response::new(message())),
        }
    }

    type WatchStream = Messages;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Messages>, Status> {
        let mut messages = vec![Ok(message()); 3];
        match request.get_ref().service.as_str() {
            "fails late" => messages.push(Err(Status::internal("broken"))),
            "fails early" => messages = vec![Err(Status::internal("broken"))],
            _ => {}
        }
        Ok(Response::new(tokio_stream::iter(messages)))
    }
}

/// A server whose one key has this limit, and its clients.
struct Scene {
    url: String,
    events: Events,
}

impl Scene {
    fn start(limit: u64) -> Self {
        let (store, events) = (store(limit), Events::default());
        let layers = ServiceBuilder::new()
            .layer(UsageRecorderLayer::new(events.clone()))
            .layer(TrialKeyAuthLayer::new(store.clone()).reject(GrpcStatus))
            .layer(DailyQuotaLayer::new(store).reject(GrpcStatus));
        let service = HealthServer::new(Named).send_compressed(Gzip).accept_compressed(Gzip);
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}", incoming.local_addr().unwrap());
        let server = Server::builder().layer(layers).add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        Self { url, events }
    }

    async fn client(&self) -> HealthClient<Channel> {
        client(&self.url).await
    }

    /// Calls a stream, and returns the number of messages and how it ended.
    async fn watch(&self, name: &str) -> (usize, Option<Code>) {
        let mut stream = self.client().await.watch(call(name)).await.unwrap().into_inner();
        let mut messages = 0;
        loop {
            match stream.message().await {
                Ok(Some(_)) => messages += 1,
                Ok(None) => return (messages, None),
                Err(status) => return (messages, Some(status.code())),
            }
        }
    }

    /// Returns the events, which the server has recorded before a client sees the end of its call.
    fn events(&self) -> Vec<UsageEvent> {
        self.events.0.lock().unwrap().clone()
    }

    fn outcomes(&self) -> Vec<(RequestOutcome, Option<String>, u32)> {
        let outcome = |event: UsageEvent| (event.outcome, event.code.map(Into::into), event.units);
        self.events().into_iter().map(outcome).collect()
    }
}

async fn client(url: &str) -> HealthClient<Channel> {
    let channel = Channel::from_shared(url.to_owned()).unwrap();
    HealthClient::new(channel.connect().await.unwrap())
}

/// A call with the key.
fn call(name: &str) -> Request<HealthCheckRequest> {
    let mut request = call_without_key(name);
    request.metadata_mut().insert("authorization", format!("Bearer {KEY}").parse().unwrap());
    request
}

fn call_without_key(name: &str) -> Request<HealthCheckRequest> {
    Request::new(HealthCheckRequest { service: name.into() })
}

fn text<'a>(metadata: &'a MetadataMap, name: &str) -> &'a str {
    metadata.get(name).unwrap_or_else(|| panic!("{name}")).to_str().unwrap()
}

use RequestOutcome::{Failed, Rejected as WasRejected, Succeeded};

#[tokio::test]
async fn a_call_succeeds_and_is_counted() {
    let scene = Scene::start(5);
    let response = scene.client().await.check(call("")).await.unwrap();
    assert!(text(response.metadata(), "ratelimit").contains("r=4"));
    assert_eq!(response.into_inner(), message());
    assert_eq!(scene.outcomes(), [(Succeeded, None, 1)]);
    assert_eq!(scene.events()[0].path, "/grpc.health.v1.Health/Check");
}

#[tokio::test]
async fn a_call_without_a_valid_key_is_unauthenticated() {
    let scene = Scene::start(5);
    let mut client = scene.client().await;
    let mut wrong = call_without_key("");
    wrong.metadata_mut().insert("authorization", "Bearer trial-key-guessed".parse().unwrap());
    for (request, message) in [
        (call_without_key(""), "No API key was sent."),
        (wrong, "The API key is unknown or was deleted."),
    ] {
        let status = client.check(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().starts_with(message), "{status:?}");
        assert!(text(status.metadata(), "www-authenticate").starts_with("Bearer"));
    }
    let codes = ["missing_api_key", "invalid_api_key"];
    assert_eq!(scene.outcomes(), codes.map(|code| (WasRejected, Some(code.to_owned()), 0)));
}

#[tokio::test]
async fn an_exhausted_quota_is_a_status_with_the_rate_limit_headers() {
    let scene = Scene::start(1);
    let mut client = scene.client().await;
    client.check(call("")).await.unwrap();
    for _ in 0..2 {
        let status = client.check(call("")).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status.message().contains("is used up. It resets at"), "{status:?}");
        assert!(text(status.metadata(), "ratelimit").contains("r=0"));
        let status = client.watch(call("")).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    let rejected = (WasRejected, Some("insufficient_quota".to_owned()), 0);
    assert_eq!(scene.outcomes()[1..], vec![rejected; 4]);
}

#[tokio::test]
async fn a_failed_call_has_failed_and_costs_nothing_if_that_is_the_servers_fault() {
    let scene = Scene::start(5);
    let mut client = scene.client().await;
    for (name, code) in [("internal", Code::Internal), ("not found", Code::NotFound)] {
        assert_eq!(client.check(call(name)).await.unwrap_err().code(), code);
    }
    let failed = |reason: &str, units| (Failed, Some(reason.to_owned()), units);
    assert_eq!(scene.outcomes(), [failed("grpc_internal", 0), failed("grpc_not_found", 1)]);
}

#[tokio::test]
async fn a_service_rejects_a_call_for_nothing() {
    let scene = Scene::start(5);
    let status = scene.client().await.check(call("free")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "busy"));
    assert!(text(status.metadata(), "ratelimit").contains("r=5"));
    assert_eq!(scene.outcomes(), [(Failed, Some("grpc_resource_exhausted".to_owned()), 0)]);
}

#[tokio::test]
async fn the_layers_fit_around_one_service_of_a_server() {
    let store = store(1);
    let layers = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()).reject(GrpcStatus))
        .layer(DailyQuotaLayer::new(store).reject(GrpcStatus));
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let server = Server::builder().add_service(layers.named_layer(HealthServer::new(Named)));
    tokio::spawn(server.serve_with_incoming(incoming));
    let mut client = client(&url).await;
    for (request, expected) in [
        (call_without_key(""), Code::Unauthenticated),
        (call(""), Code::Ok),
        (call(""), Code::ResourceExhausted),
    ] {
        let ended = client.check(request).await.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(ended, expected);
    }
}

#[tokio::test]
async fn a_stream_ends_as_its_trailers_say() {
    let scene = Scene::start(5);
    assert_eq!(scene.watch("").await, (3, None));
    assert_eq!(scene.watch("fails late").await, (3, Some(Code::Internal)));
    assert_eq!(scene.watch("fails early").await, (0, Some(Code::Internal)));
    let failed = |units| (Failed, Some("grpc_internal".to_owned()), units);
    assert_eq!(scene.outcomes(), [(Succeeded, None, 1), failed(1), failed(0)]);
}

#[tokio::test]
async fn compressed_messages_pass_as_they_are() {
    let scene = Scene::start(1);
    let mut client = scene.client().await.send_compressed(Gzip).accept_compressed(Gzip);
    let response = client.check(call(&"long ".repeat(1000))).await.unwrap();
    assert_eq!(text(response.metadata(), "grpc-encoding"), "gzip");
    assert_eq!(response.into_inner(), message());
    let status = client.check(call("")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}

#[test]
fn a_rejection_is_trailers_only() {
    for (status, code) in [
        (400, Code::InvalidArgument),
        (401, Code::Unauthenticated),
        (402, Code::ResourceExhausted),
        (403, Code::PermissionDenied),
        (404, Code::NotFound),
        (405, Code::Unimplemented),
        (409, Code::Aborted),
        (413, Code::ResourceExhausted),
        (418, Code::Unknown),
        (429, Code::ResourceExhausted),
        (500, Code::Internal),
        (501, Code::Unimplemented),
        (502, Code::Unavailable),
        (503, Code::Unavailable),
        (504, Code::DeadlineExceeded),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let rejection = Rejection::permanent(status, "kind", "code", "额度 100 %\n used");
        let response = rejection.render(&GrpcStatus, &http::Request::new(()));
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert!(response.body().is_empty());
        assert_eq!(response.extensions().get::<Rejected>().unwrap().code, "code");
        let seen = Status::from_header_map(response.headers()).unwrap();
        assert_eq!((seen.code(), seen.message()), (code, "额度 100 %\n used"), "{status}");
    }
}
