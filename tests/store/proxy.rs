//! A proxy between a store and its PostgreSQL server.

use std::future::Future;

use tokio::net::{TcpListener, TcpStream, UnixStream};

/// Starts a proxy before the server of this URL. `relay` moves the bytes of a connection, until it ends. Returns the URL of
/// the database through the proxy.
#[expect(clippy::disallowed_methods, reason = "one task for the proxy and for each connection")]
pub(crate) async fn start<F>(
    url: &str,
    relay: impl Fn(TcpStream, UnixStream) -> F + Send + 'static,
) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let (base, socket) = url.split_once("?host=").unwrap();
    let socket = format!("{socket}/.s.PGSQL.5432");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            // While the server has ended, so does each connection.
            if let Ok(server) = UnixStream::connect(&socket).await {
                tokio::spawn(relay(client, server));
            }
        }
    });
    base.replace("quota@/", &format!("quota@{address}/"))
}
