//! An upstream that has rejected the sponsor's key or balance is left alone for 5 s: one prompt of a
//! coding CLI would ask it up to 30 times.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::common::{Client, GatewayCommand, Upstream, eventually, full};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tokio::{task::JoinSet, time::advance};
use tower::{ServiceExt, service_fn};
use tower_quota::{
    error::UpstreamFault,
    openai::{OpenAiErrors, proxy_rules},
    proxy::{CredentialCooldown, RequestBody, UpstreamProxyService},
};

const COOLDOWN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn thirty_requests_after_a_rejection_do_not_reach_the_upstream() {
    for status in [401, 402] {
        let rejecting = move |_| Response::builder().status(status).body(full("no")).unwrap();
        let upstream = Upstream::start(rejecting).await;
        let gateway = GatewayCommand::before(upstream.base_url()).start();
        let key = gateway.create_key(json!({"daily_limit": 2})).await;
        let (client, url) = (Client::http1(), gateway.url("/v1/chat/completions"));
        let began = Instant::now();
        let mut attempts = JoinSet::new();
        for attempt in 0..30 {
            let (client, url, key) = (client.clone(), url.clone(), key.clone());
            let send = async move { client.post_as(&key, &url, &json!({})).await };
            match attempt {
                0 => assert_eq!(send.await.code(), "upstream_credentials"),
                _ => drop(attempts.spawn(send)),
            }
        }
        for response in attempts.join_all().await {
            assert!(matches!(response.status.as_u16(), 429 | 502), "{response:?}");
            if response.status == 502 {
                assert_eq!(response.code(), "upstream_credentials");
                assert_eq!(response.header("x-should-retry"), "false");
                assert_eq!(response.header("retry-after"), "");
            }
        }
        // On a machine that is slow beyond measure it is called again after 5 s.
        let requested_again = began.elapsed().as_secs() / COOLDOWN.as_secs();
        assert!(upstream.count() as u64 <= 1 + requested_again, "{} calls", upstream.count());
        assert_eq!(gateway.used(&key).await, 0);
    }
}

/// A path that no credential opens is no rejected sponsor, and free requests are made with keys that have
/// nothing left, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_on_a_free_path_does_not_pause_requests() {
    let upstream = Upstream::start(|request| {
        let is_free = request.uri().path().starts_with("/v1/models/");
        Response::builder().status(if is_free { 401 } else { 200 }).body(full("{}")).unwrap()
    })
    .await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    let (client, url) = (Client::http1(), gateway.url("/v1/chat/completions"));
    for _ in 0..3 {
        let free = client.get_as(&key, &gateway.url("/v1/models/gone")).await;
        assert_eq!(free.code(), "upstream_credentials");
        assert_eq!(client.post_as(&key, &url, &json!({})).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sponsor_that_has_paid_is_served_again() {
    let paid = Arc::new(AtomicU16::new(402));
    let status = paid.clone();
    let upstream = Upstream::start(move |_| {
        let status = status.load(Ordering::SeqCst);
        Response::builder().status(status).body(full("{}")).unwrap()
    })
    .await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 100_000})).await;
    let (client, url) = (Client::http1(), gateway.url("/v1/chat/completions"));
    assert_eq!(client.post_as(&key, &url, &json!({})).await.status, 502);
    paid.store(200, Ordering::SeqCst);
    eventually("service", || async { client.post_as(&key, &url, &json!({})).await.status == 200 })
        .await;
    assert_eq!(client.post_as(&key, &url, &json!({})).await.status, 200);
    assert_eq!(upstream.count(), 3, "one request found out that it still rejects");
}

/// An upstream of this status, and how often it was called.
#[derive(Clone, Default)]
struct CountedUpstream {
    status: Arc<AtomicU16>,
    times: Arc<AtomicUsize>,
}

impl CountedUpstream {
    fn proxy(
        &self,
    ) -> impl tower::Service<
        Request<Full<Bytes>>,
        Response = Response<impl http_body::Body>,
        Error = Infallible,
        Future: Send,
    > + Clone {
        let upstream = self.clone();
        let transport = service_fn(move |_: Request<RequestBody<Full<Bytes>>>| {
            let upstream = upstream.clone();
            async move {
                upstream.times.fetch_add(1, Ordering::SeqCst);
                // Those that come meanwhile come before the response.
                tokio::time::sleep(Duration::from_millis(10)).await;
                let mut response = Response::new(Full::<Bytes>::default());
                let status = upstream.status.load(Ordering::SeqCst);
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        UpstreamProxyService::new(transport, "https://api.example.com/v1".parse().unwrap())
            .credential(HeaderValue::from_static("Bearer sponsor"))
            .rules(proxy_rules())
            .credential_cooldown(CredentialCooldown::new(COOLDOWN))
            .reject(OpenAiErrors)
    }

    /// Sends five requests at once; returns their statuses.
    async fn five(&self, proxy: &(impl Ask + Clone)) -> [u16; 5] {
        let five = [(); 5].map(|()| proxy.clone().ask());
        let mut statuses = [0; 5];
        for (place, status) in statuses.iter_mut().zip(futures_util::future::join_all(five).await) {
            *place = status;
        }
        statuses.sort_unstable();
        statuses
    }

    fn times(&self) -> usize {
        self.times.swap(0, Ordering::SeqCst)
    }
}

trait Ask {
    fn ask(self) -> impl Future<Output = u16>;
}

impl<S, B> Ask for S
where
    S: tower::Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>,
{
    async fn ask(self) -> u16 {
        let request = Request::post("/chat/completions").header("host", "gateway");
        let response = self.oneshot(request.body(Full::default()).unwrap()).await.unwrap();
        let fault = response.extensions().get::<UpstreamFault>();
        assert_eq!(fault.is_some(), response.status() == 502);
        response.status().as_u16()
    }
}

#[tokio::test(start_paused = true)]
async fn one_request_tries_again_after_five_seconds() {
    let upstream = CountedUpstream::default();
    let proxy = upstream.proxy();
    upstream.status.store(402, Ordering::SeqCst);
    assert_eq!(upstream.five(&proxy).await, [502; 5]);
    assert_eq!(upstream.times(), 5, "nothing was known when they were sent");
    assert_eq!(upstream.five(&proxy).await, [502; 5]);
    advance(COOLDOWN - Duration::from_millis(20)).await;
    assert_eq!(upstream.five(&proxy).await, [502; 5]);
    assert_eq!(upstream.times(), 0);

    advance(COOLDOWN).await;
    assert_eq!(upstream.five(&proxy).await, [502; 5]);
    assert_eq!(upstream.times(), 1, "one of five");
    assert_eq!(upstream.five(&proxy).await, [502; 5]);
    assert_eq!(upstream.times(), 0, "it was rejected again");

    advance(COOLDOWN).await;
    upstream.status.store(200, Ordering::SeqCst);
    assert_eq!(upstream.five(&proxy).await, [200, 502, 502, 502, 502]);
    assert_eq!(upstream.five(&proxy).await, [200; 5]);
    assert_eq!(upstream.times(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_403_alone_is_no_rejection_of_the_sponsor() {
    let upstream = CountedUpstream::default();
    let proxy = upstream.proxy();
    upstream.status.store(403, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(upstream.five(&proxy).await, [502; 5]);
    }
    assert_eq!(upstream.times(), 10);
}
