//! The server: the complete stack and the admin service over one store.

use std::{convert::Infallible, net::Ipv4Addr};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    admin::{AdminTokens, admin_service, store::AdminStore},
    auth::TrialKeyAuthLayer,
    openai::OpenAiUsage,
    quota::DailyQuotaLayer,
    store::{
        KeyStore, QuotaStore, UsageSink,
        postgres::{PostgresOptions, PostgresStore},
        sqlite::{SqliteOptions, SqliteStore},
    },
    usage::{RequestBody, UsageRecorderLayer},
};

use crate::Database;

pub(crate) const TOKEN: &str = "correct-horse-battery-staple";

const COMPLETION: &str = r#"{"model":"deepseek-chat","choices":[{"message":{"content":"Hello"}}],"usage":{"prompt_tokens":8,"completion_tokens":9,"total_tokens":17}}"#;

type Body = UnsyncBoxBody<Bytes, BoxError>;

pub(crate) async fn serve(
    database: &Database,
    retention_days: u32,
) -> Result<Infallible, BoxError> {
    match database {
        Database::Sqlite(path) => {
            let options = SqliteOptions::new(path).retention_days(retention_days);
            serve_store(SqliteStore::open(options)?).await
        }
        Database::Postgres { url, journal } => {
            let options = PostgresOptions::new(url, journal)?.retention_days(retention_days);
            serve_store(PostgresStore::open(options).await?).await
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "one task per connection")]
async fn serve_store<S>(store: S) -> Result<Infallible, BoxError>
where
    S: AdminStore + KeyStore + QuotaStore + UsageSink + Clone,
{
    let admin = admin_service(store.clone(), AdminTokens::parse(TOKEN)?);
    let stack = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(store.clone()).format(OpenAiUsage).watch_requests())
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store))
        .service(service_fn(complete));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (admin, stack) = (admin.clone(), stack.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (admin, stack) = (admin.clone(), stack.clone());
            async move {
                if request.uri().path().starts_with("/admin") {
                    let Ok(response) = admin.oneshot(request).await;
                    Ok::<_, hyper::Error>(response.map(|body| Body::new(body.map_err(Into::into))))
                } else {
                    let response = stack.oneshot(request).await?;
                    Ok(response.map(|body| Body::new(body.map_err(Into::into))))
                }
            }
        });
        tokio::spawn(async move {
            Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await
        });
    }
}

async fn complete(
    request: Request<RequestBody<Incoming>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    request.into_body().collect().await?;
    let mut response = Response::new(COMPLETION.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
