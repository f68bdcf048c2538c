//! The table `nodes`: the end of processes that do not come back.

use tokio_postgres::Client;

use super::{
    checkpoint,
    sql::{self, bytes},
};
use crate::store::engine::journal::DatabaseId;

/// Gives up a node in the open transaction: the unused units of its leases count as used and its open requests as
/// failed. Its journal is not accepted any more, as its records would be counted twice.
pub(super) async fn give_up(client: &Client, node: DatabaseId) -> sql::Result<()> {
    let sql = "SELECT end_leases(number, true) FROM nodes WHERE id = $1";
    sql::execute(client, sql, &[bytes(&&node.0[..])]).await?;
    checkpoint::fail_open_requests(client, node).await?;
    // No process has this session.
    let close = "UPDATE nodes SET is_closed = true, session = 0, released_at = now() WHERE id = $1";
    sql::execute(client, close, &[bytes(&&node.0[..])]).await.map(drop)
}
