//! The database into which rows are moved.

use std::{fmt::Write, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::runtime::Handle;
use tokio_postgres::{Client, error::SqlState};

use super::{
    super::{
        OpenError, PostgresOptions,
        open::{cannot_migrate, cannot_open, check_server},
        schema,
        session::{Error, Session},
        sql::{self, bytes, int, text},
    },
    Record,
};

/// Key of the advisory lock of the migration.
const LOCK: i64 = 0x746f_7765_7271_0003;
/// Settings of the connection. A lock waits for a transaction that the process before has left, or for an operator's.
const SETTINGS: &str = "SET lock_timeout = '10s'";
/// Time for which a batch of rows may take.
const BATCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for which reading or analysing a whole table may take.
const TABLE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// A value of a row.
pub(in crate::store) enum Value {
    Null,
    Int(i64),
    Flag(bool),
    Text(String),
}

impl Value {
    /// Returns the text as PostgreSQL stores it.
    pub(in crate::store) fn text(text: &str) -> Self {
        Self::Text(sql::storable(text).into_owned())
    }
}

/// How much of a migration is done: the tables before `table`, and the first `rows` of this one.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::store) struct Position {
    pub(in crate::store) table: String,
    pub(in crate::store) rows: u64,
}

/// A database that is empty, or has a part of a migration, or all of it.
pub(in crate::store) struct Target {
    session: Session,
    options: PostgresOptions,
    record: Option<Record>,
}

impl Target {
    /// Opens the database, and creates its tables.
    ///
    /// # Errors
    ///
    /// It cannot be used, or has rows that no migration has moved.
    pub(in crate::store) fn open(
        runtime: &Handle,
        options: PostgresOptions,
    ) -> Result<Self, OpenError> {
        let mut target = Self::connect(runtime, options)?;
        let client = &target.session.client;
        runtime
            .block_on(schema::migrate(client))
            .map_err(|error| cannot_migrate(&target.options, error))?;
        let lock = async {
            client.batch_execute(SETTINGS).await?;
            sql::one(client, "SELECT pg_advisory_lock($1)", &[int(&LOCK)]).await.map(drop)
        };
        match target.session.run_within(BATCH_TIMEOUT, lock) {
            Err(Error::Sql(error)) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                let message =
                    format!("another migration into {} is running", target.options.address);
                return Err(OpenError::new(message));
            }
            locked => locked.map_err(|error| target.failed(error))?,
        }
        target.read()?;
        Ok(target)
    }

    /// Opens the database as it is, for reading.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(in crate::store) fn open_read_only(
        runtime: &Handle,
        options: PostgresOptions,
    ) -> Result<Self, OpenError> {
        let mut target = Self::connect(runtime, options)?;
        let client = &target.session.client;
        let read_only = client.batch_execute("SET default_transaction_read_only = on");
        target.session.run(read_only).map_err(|error| target.failed(error))?;
        let version = runtime.block_on(schema::version(client));
        let version = version.map_err(|error| cannot_migrate(&target.options, error))?;
        if version.is_some() {
            target.read()?;
        }
        Ok(target)
    }

    fn connect(runtime: &Handle, options: PostgresOptions) -> Result<Self, OpenError> {
        let session = Session::open(runtime, &options.address, None)
            .map_err(|error| cannot_open(&options, error))?;
        check_server(&session, &options)?;
        Ok(Self { session, options, record: None })
    }

    /// Reads what is there of a migration.
    fn read(&mut self) -> Result<(), OpenError> {
        self.record = self
            .session
            .run(Record::read(&self.session.client))
            .map_err(|error| self.failed(error))?;
        if self.record.is_none() {
            let filled = self.session.run_within(BATCH_TIMEOUT, filled(&self.session.client));
            if let Some(table) = filled.map_err(|error| self.failed(error))? {
                return Err(self.not_empty(&table));
            }
        }
        Ok(())
    }

    /// Returns the position of the migration of the SQLite database with this hash of its rows; `None` if it has not
    /// begun.
    ///
    /// # Errors
    ///
    /// Rows of another one are there.
    pub(in crate::store) fn position(&self, source: &[u8]) -> Result<Option<Position>, OpenError> {
        let Some(record) = &self.record else { return Ok(None) };
        if record.source == source {
            return Ok(Some(Position {
                table: record.moving.clone(),
                rows: sql::count(record.moved),
            }));
        }
        let (shown, Record { path, began_at, .. }) = (&self.options.address, record);
        Err(OpenError::new(match &record.completed_at {
            None => format!(
                "{shown} has a part of {path} as it was when a migration began at {began_at} (UTC), and the \
                 contents are other ones now; create an empty database and migrate into it"
            ),
            Some(at) => format!(
                "{shown} has the contents of {path} since a migration that was complete at {at} (UTC), and \
                 these are other ones"
            ),
        }))
    }

    /// Whether the migration is complete.
    pub(in crate::store) fn is_complete(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.completed_at.is_some())
    }

    /// Begins the migration of the SQLite database with this path and this hash of its rows.
    ///
    /// # Errors
    ///
    /// The database is not empty any more.
    pub(in crate::store) fn begin(
        &mut self,
        source: &[u8],
        path: &str,
        start: &Position,
    ) -> Result<(), OpenError> {
        let (client, path, table) = (&self.session.client, sql::storable(path), &start.table);
        let begin = async {
            // A gateway that starts now waits for the end of this transaction, and finds its row.
            client.batch_execute("BEGIN; LOCK TABLE nodes IN SHARE ROW EXCLUSIVE MODE").await?;
            if let Some(table) = filled(client).await? {
                return Ok(Some(table));
            }
            let sql = "INSERT INTO sqlite_migration (source, path, moving) VALUES ($1, $2, $3)";
            sql::execute(client, sql, &[bytes(&source), text(&path), text(table)]).await?;
            client.batch_execute("COMMIT").await?;
            Ok(None)
        };
        let filled = self.session.run_within(BATCH_TIMEOUT, begin);
        match filled.map_err(|error| self.failed(error))? {
            Some(table) => Err(self.not_empty(&table)),
            None => Ok(()),
        }
    }

    /// Adds rows to the table at `from`, and moves the position behind them, in one transaction.
    pub(in crate::store) fn append(
        &self,
        columns: &[&str],
        rows: &[Vec<Value>],
        (from, table): (&Position, &str),
    ) -> Result<Position, OpenError> {
        let client = &self.session.client;
        let behind = from.rows * u64::from(from.table == table) + rows.len() as u64;
        let behind = Position { table: table.to_owned(), rows: behind };
        let (had, has) = (sql::bigint(from.rows), sql::bigint(behind.rows));
        let append = async {
            // The last transaction of the migration is flushed to disk, and with it all before.
            client.batch_execute("BEGIN; SET LOCAL synchronous_commit = off").await?;
            let sql = "UPDATE sqlite_migration SET moving = $1, moved = $2
                WHERE moving = $3 AND moved = $4 AND completed_at IS NULL";
            let values = [text(&behind.table), int(&has), text(&from.table), int(&had)];
            if sql::execute(client, sql, &values).await? != 1 {
                return Ok(false);
            }
            let copy = format!("COPY {table} ({}) FROM STDIN", columns.join(", "));
            let mut sink = pin!(client.copy_in::<_, Bytes>(&copy).await?);
            sink.send(encoded(rows).into()).await?;
            sink.finish().await?;
            client.batch_execute("COMMIT").await?;
            Ok(true)
        };
        let appended = self.session.run_within(BATCH_TIMEOUT, append);
        match appended.map_err(|error| self.failed(error))? {
            true => Ok(behind),
            false => Err(OpenError::new(format!(
                "another migration into {} has moved rows meanwhile",
                self.options.address
            ))),
        }
    }

    /// Returns the values of aggregates of a table.
    pub(in crate::store) fn sums(
        &self,
        table: &str,
        aggregates: &[String],
    ) -> Result<Vec<i128>, OpenError> {
        let aggregates = aggregates.iter().map(|sum| format!("coalesce({sum}, 0)::text"));
        let query = format!("SELECT {} FROM {table}", aggregates.collect::<Vec<_>>().join(", "));
        let read = async {
            let row = sql::one(&self.session.client, &query, &[]).await?;
            let sums = (0..row.len()).map(|at| Ok(row.try_get::<_, &str>(at)?.parse().ok()));
            sums.collect::<sql::Result<Option<Vec<i128>>>>()
        };
        let sums = self.session.run_within(TABLE_TIMEOUT, read);
        let sums = sums.map_err(|error| self.failed(error))?;
        sums.ok_or_else(|| self.differs(table, "its sums are no whole numbers"))
    }

    /// Returns the error for a table whose rows are not those that were read.
    pub(in crate::store) fn differs(&self, table: &str, how: &str) -> OpenError {
        OpenError::new(format!(
            "{table} in {} is not what was read from the file: {how}; create an empty database, keep everything \
             else away from it, and migrate again",
            self.options.address
        ))
    }

    /// Prepares the tables for use. `numbers` are tables with the column and the last value of their numbers.
    pub(in crate::store) fn prepare(
        &self,
        tables: impl Iterator<Item = &'static str>,
        numbers: &[(&str, &str, i64)],
    ) -> Result<(), OpenError> {
        let client = &self.session.client;
        let prepare = async {
            for (table, column, last) in numbers {
                let sql = "SELECT setval(pg_get_serial_sequence($1, $2), $3)";
                sql::one(client, sql, &[text(table), text(column), int(last)]).await?;
            }
            // Reports are slow until the server knows what is in the tables.
            for table in tables {
                client.batch_execute(&format!("ANALYZE {table}")).await?;
            }
            Ok(())
        };
        self.session.run_within(TABLE_TIMEOUT, prepare).map_err(|error| self.failed(error))
    }

    /// Ends the migration.
    pub(in crate::store) fn complete(&self) -> Result<(), OpenError> {
        let sql = "UPDATE sqlite_migration SET completed_at = now() WHERE completed_at IS NULL";
        let client = &self.session.client;
        let complete = async {
            client.batch_execute("SET synchronous_commit = on").await?;
            sql::execute(client, sql, &[]).await
        };
        self.session.run(complete).map(drop).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: Error) -> OpenError {
        cannot_open(&self.options, error)
    }

    fn not_empty(&self, table: &str) -> OpenError {
        OpenError::new(format!(
            "{} is not empty: it has rows in {table}; create an empty database for the migration",
            self.options.address
        ))
    }
}

/// Returns a table that has rows, if there is one.
async fn filled(client: &Client) -> sql::Result<Option<String>> {
    let tables = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = current_schema()
        AND tablename NOT IN ('schema_version', 'sqlite_migration') ORDER BY tablename";
    for row in sql::query(client, tables, &[]).await? {
        let table: String = row.try_get(0)?;
        let exists = format!("SELECT EXISTS (SELECT 1 FROM {table})");
        if sql::one(client, &exists, &[]).await?.try_get(0)? {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// Encodes rows in the text format of `COPY`.
fn encoded(rows: &[Vec<Value>]) -> String {
    let mut lines = String::new();
    for row in rows {
        for (at, value) in row.iter().enumerate() {
            if at > 0 {
                lines.push('\t');
            }
            match value {
                Value::Null => lines.push_str("\\N"),
                // Writing to a string does not fail.
                Value::Int(number) => drop(write!(lines, "{number}")),
                Value::Flag(is_set) => lines.push(if *is_set { 't' } else { 'f' }),
                Value::Text(text) => text.chars().for_each(|c| match c {
                    '\\' => lines.push_str("\\\\"),
                    '\t' => lines.push_str("\\t"),
                    '\n' => lines.push_str("\\n"),
                    '\r' => lines.push_str("\\r"),
                    c => lines.push(c),
                }),
            }
        }
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_kind_are_encoded_in_one_line_each() {
        let text = |text: &str| Value::Text(text.to_owned());
        let rows = [
            vec![text("a\tb\\N\r\nc"), Value::Null, text(""), text("密钥")],
            vec![Value::Int(-7), Value::Flag(true), Value::Flag(false), text("\\.")],
        ];
        assert_eq!(encoded(&rows), "a\\tb\\\\N\\r\\nc\t\\N\t\t密钥\n-7\tt\tf\t\\\\.\n");
    }
}
