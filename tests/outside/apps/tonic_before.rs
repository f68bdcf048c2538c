use std::error::Error;

use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::server::health_reporter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (_, health) = health_reporter();

    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    println!("{}", incoming.local_addr()?);
    let mut server = Server::builder();
    Ok(server.add_service(health).serve_with_incoming(incoming).await?)
}
