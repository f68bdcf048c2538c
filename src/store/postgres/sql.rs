//! Statements and their parameters.
//!
//! Statements have no names: a pooler that hands connections on between transactions does not know those of
//! another connection. Each takes one round trip.

use std::borrow::Cow;

use tokio_postgres::{
    Client, Row,
    error::SqlState,
    types::{ToSql, Type},
};

pub(super) type Error = tokio_postgres::Error;
pub(super) type Result<T> = std::result::Result<T, Error>;
/// Parameter with its type.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

pub(super) fn text(value: &(impl ToSql + Sync)) -> Param<'_> {
    (value, Type::TEXT)
}

pub(super) fn int(value: &(impl ToSql + Sync)) -> Param<'_> {
    (value, Type::INT8)
}

pub(super) fn int4(value: &(impl ToSql + Sync)) -> Param<'_> {
    (value, Type::INT4)
}

pub(super) fn flag(value: &(impl ToSql + Sync)) -> Param<'_> {
    (value, Type::BOOL)
}

pub(super) fn time(value: &(impl ToSql + Sync)) -> Param<'_> {
    (value, Type::TIMESTAMPTZ)
}

pub(super) fn bytes(value: &(impl ToSql + Sync)) -> Param<'_> {
    (value, Type::BYTEA)
}

#[cfg(feature = "admin")]
pub(super) fn double(value: &(impl ToSql + Sync)) -> Param<'_> {
    (value, Type::FLOAT8)
}

pub(super) fn texts(value: &(impl ToSql + Sync)) -> Param<'_> {
    (value, Type::TEXT_ARRAY)
}

pub(super) fn ints(value: &(impl ToSql + Sync)) -> Param<'_> {
    (value, Type::INT8_ARRAY)
}

/// Returns the text as PostgreSQL can store it, which is without NUL.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// Returns the number as PostgreSQL stores it.
pub(super) fn bigint(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Returns a stored count, 0 if it is negative.
pub(super) fn count(number: i64) -> u64 {
    number.max(0).unsigned_abs()
}

pub(super) async fn execute(client: &Client, sql: &str, params: &[Param<'_>]) -> Result<u64> {
    client.execute_typed(sql, params).await
}

pub(super) async fn query(client: &Client, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
    client.query_typed(sql, params).await
}

/// Returns the only row.
pub(super) async fn one(client: &Client, sql: &str, params: &[Param<'_>]) -> Result<Row> {
    client.query_typed_one(sql, params).await
}

/// Returns the only row, if there is one.
pub(super) async fn optional(
    client: &Client,
    sql: &str,
    params: &[Param<'_>],
) -> Result<Option<Row>> {
    client.query_typed_opt(sql, params).await
}

/// Returns whether a read has failed because the database is damaged: `XX001`, `XX002` or `58030`.
pub(super) fn is_damage(error: &Error) -> bool {
    let damage = [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED, SqlState::IO_ERROR];
    error.code().is_some_and(|code| damage.contains(code))
}

/// Returns whether the statement failed because of its own rows, not because of the database.
pub(super) fn is_of_rows(error: &Error) -> bool {
    let class = error.code().map(SqlState::code).and_then(|code| code.get(..2));
    // Data exception and integrity constraint violation.
    matches!(class, Some("22" | "23"))
}
