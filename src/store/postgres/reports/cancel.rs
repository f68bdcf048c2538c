//! Queries that are cancelled when their future is dropped.

use std::sync::Arc;

use deadpool_postgres::Object;
use tokio::runtime::Handle;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Guard that cancels the query of a connection if it is dropped before [`finish`](Self::finish). The
/// connection does not return to the pool then, where others would wait for the end of the query.
pub(super) struct CancelOnDrop<'a> {
    /// `None` after the last query.
    connection: Option<Arc<Object>>,
    tls: &'a MakeRustlsConnect,
}

impl<'a> CancelOnDrop<'a> {
    /// Creates a guard, and returns its connection, which must be dropped before it.
    pub(super) fn new(connection: Object, tls: &'a MakeRustlsConnect) -> (Self, Arc<Object>) {
        let connection = Arc::new(connection);
        (Self { connection: Some(connection.clone()), tls }, connection)
    }

    /// Returns the connection to the pool.
    pub(super) fn finish(mut self) {
        self.connection = None;
    }
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take().and_then(Arc::into_inner) else { return };
        let (token, tls) = (connection.cancel_token(), self.tls.clone());
        drop(Object::take(connection));
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = token.cancel_query(tls).await {
                    tracing::debug!(%error, "cancelling a query failed: it runs until its timeout");
                }
            });
        }
    }
}
