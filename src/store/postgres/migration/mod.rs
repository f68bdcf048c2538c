//! A SQLite database whose rows are moved here: how much of it is here.

#[cfg(feature = "sqlite")]
mod target;

use tokio_postgres::Client;

#[cfg(feature = "sqlite")]
pub(in crate::store) use self::target::{Position, Target, Value};
use super::{
    OpenError, PostgresOptions,
    open::cannot_open,
    session::Session,
    sql::{self, Result},
};

/// The row of `sqlite_migration`.
pub(super) struct Record {
    /// Hash of the rows of the SQLite database.
    #[cfg_attr(
        not(feature = "sqlite"),
        expect(dead_code, reason = "only a migration compares it")
    )]
    source: Vec<u8>,
    path: String,
    began_at: String,
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only a migration continues"))]
    moving: String,
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only a migration continues"))]
    moved: i64,
    completed_at: Option<String>,
}

impl Record {
    async fn read(client: &Client) -> Result<Option<Self>> {
        let query = "SELECT source, path, moving, moved,
                to_char(began_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS began_at,
                to_char(completed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS completed_at
            FROM sqlite_migration";
        let Some(row) = sql::optional(client, query, &[]).await? else { return Ok(None) };
        Ok(Some(Self {
            source: row.try_get("source")?,
            path: row.try_get("path")?,
            began_at: row.try_get("began_at")?,
            moving: row.try_get("moving")?,
            moved: row.try_get("moved")?,
            completed_at: row.try_get("completed_at")?,
        }))
    }
}

/// Checks that no migration into the database has only begun.
pub(super) fn check_complete(
    session: &Session,
    options: &PostgresOptions,
) -> std::result::Result<(), OpenError> {
    let record = session.run(Record::read(&session.client));
    match record.map_err(|error| cannot_open(options, error))? {
        Some(Record { path, began_at, completed_at: None, .. }) => Err(OpenError::new(format!(
            "{} has only a part of {path}: the migration that began at {began_at} (UTC) is not complete; \
             run the same migration again",
            options.address
        ))),
        _ => Ok(()),
    }
}
