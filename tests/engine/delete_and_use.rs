//! A key that is deleted stops at once: a request after the response is rejected, one at
//! the same time.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::common::admin::TOKEN;
use crate::common::{ADMIN_TOKEN, Client, GatewayCommand, memory_store};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinSet};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    admin::{AdminTokens, admin_service, store::AdminStore},
    auth::TrialKeyAuthLayer,
    quota::DailyQuotaLayer,
    store::{
        KeyStore, QuotaStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

const PAIRS: usize = 1000;
/// Number of keys that are used and deleted concurrently.
const AT_ONCE: usize = 8;

/// What uses keys and deletes them.
trait Service: Clone + Send + Sync + 'static {
    /// Issues this many keys.
    fn create(&self, count: usize) -> impl Future<Output = Vec<String>> + Send;
    /// Uses the key; returns the status.
    fn ask(&self, key: &str) -> impl Future<Output = u16> + Send;
    /// Deletes the key.
    fn delete(&self, key: &str) -> impl Future<Output = ()> + Send;
}

async fn no_deleted_key_is_accepted(service: impl Service) {
    let keys = service.create(PAIRS).await;
    assert_eq!(keys.len(), PAIRS);
    let mut workers = JoinSet::new();
    for share in keys.chunks(PAIRS.div_ceil(AT_ONCE)).map(<[String]>::to_vec) {
        let service = service.clone();
        workers.spawn(async move {
            for key in &share {
                delete_during_use(&service, key).await;
                assert_eq!(service.ask(key).await, 401);
            }
        });
    }
    workers.join_all().await;
}

/// Deletes a key while somebody goes on asking with it.
async fn delete_during_use(service: &impl Service, key: &str) {
    let deleted = Arc::new(AtomicBool::new(false));
    let (accepted, first) = oneshot::channel();
    let mut asker = JoinSet::new();
    {
        let (service, key, deleted) = (service.clone(), key.to_owned(), deleted.clone());
        asker.spawn(async move {
            assert_eq!(service.ask(&key).await, 200);
            let _ = accepted.send(());
            loop {
                // A store in memory never makes anybody wait.
                tokio::task::yield_now().await;
                let is_late = deleted.load(Ordering::SeqCst);
                match (is_late, service.ask(&key).await) {
                    (true, status) => return assert_eq!(status, 401),
                    (false, status) => assert!([200, 401].contains(&status), "{status}"),
                }
            }
        });
    }
    let _ = first.await;
    service.delete(key).await;
    deleted.store(true, Ordering::SeqCst);
    asker.join_all().await;
}

/// The layers over a store, in this process.
#[derive(Clone)]
struct Layers<S>(S);

impl<S: AdminStore + KeyStore + QuotaStore + Clone> Layers<S> {
    async fn admin(&self, method: Method, path: &str, body: String) -> Value {
        let admin = admin_service(self.0.clone(), AdminTokens::parse(TOKEN).unwrap());
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", format!("Bearer {TOKEN}"));
        let request = request.body(Full::<Bytes>::from(body)).unwrap();
        let (head, body) = admin.oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert!(head.status.is_success(), "{head:?}");
        serde_json::from_slice(&body).unwrap()
    }
}

impl<S: AdminStore + KeyStore + QuotaStore + Clone> Service for Layers<S> {
    async fn create(&self, count: usize) -> Vec<String> {
        texts(
            &self
                .admin(
                    Method::POST,
                    "/admin/keys",
                    json!({"count": count, "daily_limit": 1_000_000_000}).to_string(),
                )
                .await,
        )
    }

    async fn ask(&self, key: &str) -> u16 {
        let work = |_: Request<()>| async { Ok::<_, Infallible>(Response::new(String::new())) };
        let stack = ServiceBuilder::new()
            .layer(TrialKeyAuthLayer::new(self.0.clone()))
            .layer(DailyQuotaLayer::new(self.0.clone()))
            .service(service_fn(work));
        let request = Request::builder().header("authorization", format!("Bearer {key}"));
        stack.oneshot(request.body(()).unwrap()).await.unwrap().status().as_u16()
    }

    async fn delete(&self, key: &str) {
        self.admin(Method::DELETE, &format!("/admin/keys/{key}"), String::new()).await;
    }
}

/// A gateway and the connections to it.
#[derive(Clone)]
struct Served {
    client: Client,
    url: String,
}

impl Served {
    async fn admin(&self, method: Method, path: &str, body: String) -> Value {
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let url = format!("{}{path}", self.url);
        let response = self.client.send(method, &url, &[("authorization", &bearer)], body).await;
        assert!(response.status.is_success(), "{response:?}");
        response.json()
    }
}

impl Service for Served {
    async fn create(&self, count: usize) -> Vec<String> {
        texts(
            &self
                .admin(
                    Method::POST,
                    "/admin/keys",
                    json!({"count": count, "daily_limit": 1_000_000_000}).to_string(),
                )
                .await,
        )
    }

    async fn ask(&self, key: &str) -> u16 {
        let bearer = format!("Bearer {key}");
        let url = format!("{}/v1/chat/completions", self.url);
        let body = r#"{"model":"deepseek-chat","messages":[]}"#;
        let headers = [("authorization", bearer.as_str())];
        self.client.send(Method::POST, &url, &headers, body).await.status.as_u16()
    }

    async fn delete(&self, key: &str) {
        self.admin(Method::DELETE, &format!("/admin/keys/{key}"), String::new()).await;
    }
}

fn texts(created: &Value) -> Vec<String> {
    let keys = created["keys"].as_array().unwrap().iter();
    keys.map(|key| key["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deleted_keys_are_rejected_in_memory() {
    no_deleted_key_is_accepted(Layers(memory_store())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deleted_keys_are_rejected_in_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(SqliteOptions::new(dir.path().join("quota.db"))).unwrap();
    no_deleted_key_is_accepted(Layers(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deleted_keys_are_rejected_over_http() {
    let gateway = GatewayCommand::new().arg("--demo").env("RUST_LOG", "error").start();
    let client = Client::http1();
    no_deleted_key_is_accepted(Served { client, url: gateway.url("") }).await;
}
