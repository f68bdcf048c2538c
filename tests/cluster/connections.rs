//! Connections to a server that are cut without its notice.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    task::{AbortHandle, JoinHandle, JoinSet},
};

use crate::common::Random;

/// Name of the server's socket in its directory.
const SOCKET: &str = ".s.PGSQL.5432";

/// A proxy before the socket of a server. A statement that waits there for a lock does not notice that its client has gone,
/// and is executed later. It stops on drop.
pub(crate) struct Connections {
    directory: TempDir,
    /// URL of the database, without the directory of the socket.
    database: String,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: JoinHandle<()>,
}

impl Connections {
    /// Accepts connections to the database of this URL.
    #[expect(clippy::disallowed_methods, reason = "one task for the proxy")]
    pub(crate) fn to(url: &str) -> Self {
        let (database, server) = url.split_once("?host=").unwrap();
        let directory = TempDir::with_prefix("connections").unwrap();
        let listener = UnixListener::bind(directory.path().join(SOCKET)).unwrap();
        let (open, server) = (Arc::default(), PathBuf::from(server).join(SOCKET));
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&open)));
        Self { directory, database: database.to_owned(), open, accepting }
    }

    /// Returns the URL of the database through the proxy, for a client of this name.
    pub(crate) fn url(&self, client: &str) -> String {
        let directory = self.directory.path().display();
        format!("{}?host={directory}&application_name={client}", self.database)
    }

    /// Cuts about half of the connections.
    pub(crate) fn cut_half(&self, random: &mut Random) {
        let mut open = self.open.lock().unwrap();
        open.retain(|connection| !connection.is_finished());
        open.iter().filter(|_| random.below(2) == 0).for_each(AbortHandle::abort);
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: UnixListener, server: PathBuf, open: Arc<Mutex<Vec<AbortHandle>>>) {
    let mut connections = JoinSet::new();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let server = server.clone();
        let connection = connections.spawn(async move {
            // The client learns by the end of its connection that there is no server.
            if let Ok(mut server) = UnixStream::connect(server).await {
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
        open.lock().unwrap().push(connection);
    }
}
