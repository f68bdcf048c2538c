use std::{error::Error, time::Duration};

use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::server::health_reporter;
use tower::ServiceBuilder;
use tower_http::cors::CorsLayer;
use tower_quota::{
    auth::TrialKeyAuthLayer, error::GrpcStatus, quota::DailyQuotaLayer, store::sqlite::SqliteStore,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (_, health) = health_reporter();
    let store = SqliteStore::open("quota.db")?;
    let layers = ServiceBuilder::new()
        .layer(CorsLayer::permissive())
        .layer(TrialKeyAuthLayer::new(store.clone()).reject(GrpcStatus))
        .layer(DailyQuotaLayer::new(store).reject(GrpcStatus));

    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    println!("{}", incoming.local_addr()?);
    let mut server = Server::builder().timeout(Duration::from_secs(30)).layer(layers);
    Ok(server.add_service(health).serve_with_incoming(incoming).await?)
}
