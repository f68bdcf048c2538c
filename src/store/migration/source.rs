//! The rows of the SQLite database, read from an exact copy.

use rusqlite::{Row, types::ValueRef};
use sha2::{Digest, Sha256};

use super::{
    MigratedTable, MigrationError, Position,
    tables::{Kind, TABLES, Table},
};
use crate::{
    key::KeyHash,
    store::{
        postgres::migration::Value,
        sqlite::{
            BackupError, ExactCopy, MIGRATION_PART, Observer, ProgressStep, SqliteOptions, text_of,
        },
    },
};

/// Number of rows between two reports of the progress.
const ROWS_PER_REPORT: usize = 1_000;

pub(super) struct Source {
    copy: ExactCopy,
    options: SqliteOptions,
    hash: Vec<u8>,
    /// Sums of each table, as [`Table::aggregates`] names them.
    sums: Vec<Vec<i128>>,
}

impl Source {
    /// Copies the database, and reads the copy once.
    pub(super) fn open(
        options: &SqliteOptions,
        is_in_use: bool,
        observer: &Observer,
    ) -> Result<Self, MigrationError> {
        let suffix = match is_in_use {
            // A gateway that starts meanwhile removes the copy of a migration.
            true => format!(".{}.part", std::process::id()),
            false => MIGRATION_PART.to_owned(),
        };
        let copy = ExactCopy::make(options, &suffix, observer)?;
        let mut source =
            Self { copy, options: options.clone(), hash: Vec::new(), sums: Vec::new() };
        let mut hash = Sha256::new();
        for table in TABLES {
            hash.update(table.name);
            let mut sums = vec![0; table.columns.len() + 1];
            source.read(table, 0, ROWS_PER_REPORT, |rows| {
                rows.iter().for_each(|row| add(row, table, &mut hash, &mut sums));
                super::report(observer, ProgressStep::Check, 0, None)
            })?;
            source.sums.push(sums);
        }
        source.hash = hash.finalize().to_vec();
        Ok(source)
    }

    /// Returns the hash of all rows.
    pub(super) fn hash(&self) -> &[u8] {
        &self.hash
    }

    /// Returns the tables with their sums.
    pub(super) fn sums(&self) -> impl Iterator<Item = (&'static Table, &Vec<i128>)> {
        TABLES.iter().zip(&self.sums)
    }

    /// Returns the number of all rows.
    pub(super) fn rows(&self) -> u64 {
        self.sums().map(|(_, sums)| count(sums)).sum()
    }

    /// Returns the number of rows before this position.
    pub(super) fn rows_before(&self, position: &Position) -> u64 {
        let before = self.sums().take_while(|(table, _)| table.name != position.table);
        before.map(|(_, sums)| count(sums)).sum::<u64>() + position.rows
    }

    /// Calls `on_rows` with the rows of a table behind the first ones, at most `batch` at once.
    pub(super) fn read(
        &self,
        table: &Table,
        first: u64,
        batch: usize,
        mut on_rows: impl FnMut(&[Vec<Value>]) -> Result<(), MigrationError>,
    ) -> Result<(), MigrationError> {
        let failed = |error| BackupError::sqlite(&self.options.path, error);
        let columns: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
        let query = format!(
            "SELECT {} FROM {} ORDER BY {} LIMIT -1 OFFSET ?1",
            columns.join(", "),
            table.name,
            table.order
        );
        let mut statement = self.copy.connection.prepare(&query).map_err(failed)?;
        let mut rows = statement.query([first]).map_err(failed)?;
        let mut read = Vec::with_capacity(batch);
        while let Some(row) = rows.next().map_err(failed)? {
            read.push(self.values(row, table)?);
            if read.len() == batch {
                on_rows(&read)?;
                read.clear();
            }
        }
        if read.is_empty() { Ok(()) } else { on_rows(&read) }
    }

    fn values(&self, row: &Row<'_>, table: &Table) -> Result<Vec<Value>, BackupError> {
        let columns = table.columns.iter().enumerate().map(|(at, (name, kind))| {
            let value = row.get_ref(at);
            let value = value.map_err(|error| BackupError::sqlite(&self.options.path, error))?;
            converted(value, *kind).ok_or_else(|| {
                let path = self.options.path.display();
                BackupError::new(format!(
                    "{path} cannot be moved: a value of {name} in {} is not a whole number",
                    table.name
                ))
            })
        });
        columns.collect()
    }

    /// Returns the tables with numbered rows, the column and the last number that was used.
    pub(super) fn last_numbers(
        &self,
    ) -> Result<Vec<(&'static str, &'static str, i64)>, BackupError> {
        let query = "SELECT max(seq) FROM sqlite_sequence WHERE name = ?1";
        let last = |table: &str| {
            let last = self.copy.connection.query_row(query, [table], |row| row.get(0));
            let last: Result<Option<i64>, _> = last;
            last.map_err(|error| BackupError::sqlite(&self.options.path, error))
        };
        let mut numbers = Vec::new();
        for table in TABLES {
            if let Some(column) = table.number
                && let Some(last) = last(table.name)?.filter(|last| *last > 0)
            {
                numbers.push((table.name, column, last));
            }
        }
        Ok(numbers)
    }

    /// Returns what is reported of the tables.
    pub(super) fn summary(&self) -> Vec<MigratedTable> {
        let table = |(table, sums): (&'static Table, &Vec<i128>)| {
            let columns = table.columns.iter().zip(&sums[1..]);
            let reported = columns.filter(|((name, _), _)| table.sums.contains(name));
            MigratedTable {
                name: table.name,
                rows: count(sums),
                sums: reported.map(|((name, _), sum)| (*name, *sum)).collect(),
            }
        };
        self.sums().map(table).collect()
    }
}

fn count(sums: &[i128]) -> u64 {
    sums.first().and_then(|count| u64::try_from(*count).ok()).unwrap_or_default()
}

/// Converts a value to that of PostgreSQL; `None` if it has none.
fn converted(value: ValueRef<'_>, kind: Kind) -> Option<Value> {
    Some(match (kind, value) {
        (Kind::Switch, ValueRef::Null) => Value::Int(0),
        (_, ValueRef::Null) => Value::Null,
        (Kind::Text, value) => match text_of(value) {
            Some(text) => Value::text(&text),
            None => Value::Null,
        },
        (Kind::Flag, ValueRef::Integer(number)) => Value::Flag(number != 0),
        (_, ValueRef::Integer(number)) => Value::Int(number),
        (Kind::Limit, _) => Value::Int(-1),
        (Kind::Switch, _) => Value::Int(1),
        (Kind::Int | Kind::Flag, _) => return None,
    })
}

/// Adds a row to the hash of all rows and to the sums of its table.
fn add(row: &[Value], table: &Table, hash: &mut Sha256, sums: &mut [i128]) {
    sums[0] += 1;
    for (((name, _), value), sum) in table.columns.iter().zip(row).zip(&mut sums[1..]) {
        *sum += match value {
            Value::Null => 0,
            Value::Int(number) => i128::from(*number),
            Value::Flag(is_set) => i128::from(*is_set),
            Value::Text(text) => text.len() as i128,
        };
        match value {
            Value::Null => hash.update([0]),
            Value::Int(number) => {
                hash.update([1]);
                hash.update(number.to_le_bytes());
            }
            Value::Flag(is_set) => hash.update([2, u8::from(*is_set)]),
            // A row with a key that exists already has a random text in place of its hash.
            Value::Text(text) if *name == "key_hash" && KeyHash::from_hex(text).is_none() => {
                hash.update([3]);
            }
            Value::Text(text) => {
                hash.update([4]);
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text);
            }
        }
    }
}
