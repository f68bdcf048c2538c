//! The role `proxy`: one variant of the stack on a real socket.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use clap::ValueEnum;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::net::TcpListener;
use tower::{BoxError, Service, ServiceBuilder};
use tower_quota::{
    admin::store::{Actor, AdminStore, KeyPageQuery, NewKey},
    auth::TrialKeyAuthLayer,
    key::{KeyId, KeyRecord, Limit, SecretKey},
    openai::{OpenAiUsage, proxy_rules},
    proxy::{ClientOptions, RequestBody, UpstreamProxyService, upstream_client},
    quota::DailyQuotaLayer,
    store::{
        KeyStore, QuotaStore, UsageSink,
        memory::MemoryStore,
        postgres::{PostgresOptions, PostgresStore},
        sqlite::{Durability, SqliteOptions, SqliteStore},
    },
    usage::{self, UsageRecorderLayer},
};

use crate::{
    forward::{CREDENTIAL, Forward},
    options::Runtime,
    pooled::pooled_client,
};

/// The services between the client and the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// hyper's server and client only.
    Raw,
    /// `UpstreamProxyService` instead of the pass-through, with the gateway's rules.
    Proxy,
    /// The same over hyper-util's composable pool instead of the crate's client.
    ProxyPool,
    /// Auth, keys in memory.
    Auth,
    /// Auth and quota in memory.
    QuotaMemory,
    /// Auth, usage and quota in memory.
    UsageMemory,
    /// Auth and quota in SQLite, durability `process`.
    Process,
    /// Auth and quota in SQLite, durability `power`.
    Power,
    /// Auth, usage and quota in SQLite, durability `process`.
    ProcessUsage,
    /// The same with a Prometheus recorder.
    ProcessMetrics,
    /// Auth, usage and quota in SQLite, durability `power`.
    PowerUsage,
    /// Auth and quota in PostgreSQL, durability `process`.
    Postgres,
    /// Auth, usage and quota in PostgreSQL, durability `process`.
    PostgresUsage,
    /// The gateway with the settings as shipped, except that it logs warnings only.
    Gateway,
    /// The gateway with the settings as shipped, which log every request.
    GatewayInfo,
    /// HAProxy with a map of keys and a stick-table that counts their requests.
    Haproxy,
    /// nginx with a map of keys and no counts.
    Nginx,
}

impl Variant {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(crate) fn program(self) -> Program {
        match self {
            Self::Gateway | Self::GatewayInfo => Program::Gateway,
            Self::Haproxy | Self::Nginx => Program::Rival,
            _ => Program::Bench,
        }
    }

    /// Returns where the variant counts, if that outlives its process.
    pub(crate) fn back_end(self) -> Option<BackEnd> {
        match self {
            Self::Process
            | Self::ProcessUsage
            | Self::ProcessMetrics
            | Self::Gateway
            | Self::GatewayInfo => Some(BackEnd::Sqlite(Durability::Process)),
            Self::Power | Self::PowerUsage => Some(BackEnd::Sqlite(Durability::Power)),
            Self::Postgres | Self::PostgresUsage => Some(BackEnd::Postgres),
            Self::Raw
            | Self::Proxy
            | Self::ProxyPool
            | Self::Auth
            | Self::QuotaMemory
            | Self::UsageMemory
            | Self::Haproxy
            | Self::Nginx => None,
        }
    }
}

/// The program that serves a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// This one, in the role `proxy`.
    Bench,
    /// The example `gateway`.
    Gateway,
    /// HAProxy or nginx.
    Rival,
}

/// A store whose counts outlive its process.
#[derive(Clone, Copy)]
pub(crate) enum BackEnd {
    Sqlite(Durability),
    Postgres,
}

/// Daily limit of the keys: there is one, so that responses have rate headers, but it is never reached.
pub(crate) const LIMIT: u64 = Limit::MAX_STORED;

/// Maximum number of keys that are issued at once.
const MAX_BATCH: usize = 1_000;

/// Returns the text of a key.
pub(crate) fn key(number: usize) -> String {
    format!("trial-bench-20261122-{:022}", number)
}

pub(crate) struct Proxy {
    pub(crate) variant: Variant,
    pub(crate) upstream: SocketAddr,
    /// Number of keys.
    pub(crate) keys: usize,
    /// SQLite file, or the beginning of the journal's files beside PostgreSQL.
    pub(crate) database: Option<PathBuf>,
    /// URL of the PostgreSQL database.
    pub(crate) url: Option<String>,
}

impl Proxy {
    pub(crate) async fn serve(self, listener: TcpListener) -> Result<Infallible, BoxError> {
        let Self { upstream, keys, .. } = self;
        let path = || self.database.as_deref().ok_or("this variant needs --database");
        let sqlite = |durability| open_sqlite(path()?, durability);
        let postgres = async || {
            let url = self.url.as_deref().ok_or("this variant needs --url")?;
            open_postgres(url, path()?).await
        };
        match self.variant {
            Variant::Raw => serve(listener, Forward::<Incoming>::new(upstream)?).await,
            Variant::Proxy => {
                let client = upstream_client::<RequestBody<Incoming>>(ClientOptions::default())?;
                serve(listener, proxy(client, upstream)?).await
            }
            Variant::ProxyPool => {
                let client = pooled_client::<RequestBody<Incoming>>();
                serve(listener, proxy(client, upstream)?).await
            }
            Variant::Auth => {
                let store = with_keys(MemoryStore::new(), keys).await?;
                let auth = TrialKeyAuthLayer::new(store);
                let forward = Forward::<Incoming>::new(upstream)?;
                serve(listener, ServiceBuilder::new().layer(auth).service(forward)).await
            }
            Variant::QuotaMemory => {
                counted(listener, with_keys(MemoryStore::new(), keys).await?, upstream).await
            }
            Variant::UsageMemory => {
                complete(listener, with_keys(MemoryStore::new(), keys).await?, upstream).await
            }
            Variant::Process => {
                counted(listener, with_keys(sqlite(Durability::Process)?, keys).await?, upstream)
                    .await
            }
            Variant::Power => {
                counted(listener, with_keys(sqlite(Durability::Power)?, keys).await?, upstream)
                    .await
            }
            Variant::ProcessUsage => {
                complete(listener, with_keys(sqlite(Durability::Process)?, keys).await?, upstream)
                    .await
            }
            Variant::PowerUsage => {
                complete(listener, with_keys(sqlite(Durability::Power)?, keys).await?, upstream)
                    .await
            }
            Variant::ProcessMetrics => {
                install_recorder()?;
                complete(listener, with_keys(sqlite(Durability::Process)?, keys).await?, upstream)
                    .await
            }
            Variant::Postgres => {
                counted(listener, with_keys(postgres().await?, keys).await?, upstream).await
            }
            Variant::PostgresUsage => {
                complete(listener, with_keys(postgres().await?, keys).await?, upstream).await
            }
            Variant::Gateway | Variant::GatewayInfo | Variant::Haproxy | Variant::Nginx => {
                Err("not a variant of this program".into())
            }
        }
    }
}

/// Creates the crate's own proxy over a client.
fn proxy<T>(client: T, upstream: SocketAddr) -> Result<UpstreamProxyService<T>, BoxError> {
    let base = format!("http://{upstream}/v1").parse()?;
    Ok(UpstreamProxyService::new(client, base)
        .mount("/v1")
        .rules(proxy_rules())
        .credential(HeaderValue::from_static(CREDENTIAL)))
}

/// Serves auth and quota.
async fn counted<S>(
    listener: TcpListener,
    store: S,
    upstream: SocketAddr,
) -> Result<Infallible, BoxError>
where
    S: KeyStore + QuotaStore + Clone,
{
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store))
        .service(Forward::<Incoming>::new(upstream)?);
    serve(listener, service).await
}

/// Serves auth, usage and quota: the complete stack.
async fn complete<S>(
    listener: TcpListener,
    store: S,
    upstream: SocketAddr,
) -> Result<Infallible, BoxError>
where
    S: KeyStore + QuotaStore + UsageSink + Clone,
{
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(store.clone()).format(OpenAiUsage).watch_requests())
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store))
        .service(Forward::<usage::RequestBody<Incoming>>::new(upstream)?);
    serve(listener, service).await
}

/// Installs a metrics recorder as the gateway does.
fn install_recorder() -> Result<(), BoxError> {
    let mut builder = PrometheusBuilder::new();
    for metric in tower_quota::metrics::ALL {
        if let Some(buckets) = metric.buckets() {
            let name = Matcher::Full(metric.name().to_owned());
            builder = builder.set_buckets_for_metric(name, buckets)?;
        }
    }
    let recorder = builder.install_recorder()?;
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(5));
            recorder.run_upkeep();
        }
    });
    Ok(())
}

/// Opens a variant's SQLite file.
pub(crate) fn open_sqlite(path: &Path, durability: Durability) -> Result<SqliteStore, BoxError> {
    Ok(SqliteStore::open(SqliteOptions::new(path).durability(durability))?)
}

/// Issues the keys in a SQLite file before a gateway opens it.
pub(crate) fn issue_keys(path: &Path, keys: usize) -> Result<(), BoxError> {
    Runtime::Current.build()?.block_on(async {
        let store = with_keys(open_sqlite(path, Durability::Process)?, keys).await?;
        Ok(store.close().await?)
    })
}

/// Opens a variant's PostgreSQL database.
pub(crate) async fn open_postgres(url: &str, journal: &Path) -> Result<PostgresStore, BoxError> {
    Ok(PostgresStore::open(PostgresOptions::new(url, journal)?).await?)
}

/// Issues the keys if the store has none.
async fn with_keys<S: AdminStore>(store: S, keys: usize) -> Result<S, BoxError> {
    if !store.list(KeyPageQuery::first(1)).await?.keys.is_empty() {
        return Ok(store);
    }
    for first in (0..keys).step_by(MAX_BATCH) {
        let keys = (first..keys.min(first + MAX_BATCH)).map(|number| {
            let secret = SecretKey::parse(&key(number))?;
            let mut record = KeyRecord::new(KeyId::generate(), Limit::Units(LIMIT));
            record.label = format!("bench {number}");
            Ok(NewKey::new(secret, record)?)
        });
        let keys = keys.collect::<Result<Vec<_>, BoxError>>()?;
        store.create(keys, Actor::default()).await?;
    }
    Ok(store)
}

#[expect(clippy::disallowed_methods, reason = "one task per connection")]
async fn serve<S, B>(listener: TcpListener, service: S) -> Result<Infallible, BoxError>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut server = Builder::new(TokioExecutor::new());
    // Real servers have a timeout; this one is longer than connections are idle between windows.
    server.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(600));
    println!("{}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(server.serve_connection(TokioIo::new(socket), service).into_owned());
    }
}
