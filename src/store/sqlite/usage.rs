use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::{SqliteStore, requests, rows, unavailable};
use crate::{
    clock::Day,
    error::StoreError,
    key::{DailyLimit, KeyId, KeyRecord},
    store::{
        LedgerId, RequestQuery, RequestRow, StoreFuture, Tokens, UsageEvent, UsageFigures,
        UsageQuery, UsageReader, UsageReport, UsageSink, report::ReportRows,
    },
};

impl UsageSink for SqliteStore {
    fn record(&self, event: UsageEvent) {
        self.0.core.record(&event);
    }

    fn ledger(&self) -> Option<LedgerId> {
        Some(LedgerId::of(&self.0.core))
    }
}

impl UsageReader for SqliteStore {
    fn report(&self, query: UsageQuery) -> StoreFuture<UsageReport> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.written().await;
            let default = store.0.core.default_daily_limit;
            store.read(move |connection| report(connection, query, default)).await
        })
    }

    fn requests(&self, query: RequestQuery) -> StoreFuture<Vec<RequestRow>> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.written().await;
            store
                .read(move |connection| requests::read(connection, &query).map_err(unavailable))
                .await
        })
    }
}

fn report(
    connection: &Connection,
    query: UsageQuery,
    default: DailyLimit,
) -> Result<UsageReport, StoreError> {
    read_report(connection, query, default).map_err(unavailable)
}

fn read_report(
    connection: &Connection,
    query: UsageQuery,
    default: DailyLimit,
) -> rusqlite::Result<UsageReport> {
    let mut arguments = vec![query.from.to_string(), query.to.to_string()];
    arguments.extend(query.key_id.as_ref().map(|id| id.as_str().to_owned()));
    let range = if arguments.len() == 3 {
        "WHERE day BETWEEN ?1 AND ?2 AND key_id = ?3"
    } else {
        "WHERE day BETWEEN ?1 AND ?2"
    };
    let mut report = ReportRows::new(query);

    let totals = format!(
        "SELECT day, key_id, model, requests, succeeded, failed, refunded, rejected,
                prompt_tokens, completion_tokens, total_tokens, cached_tokens, reasoning_tokens
         FROM usage_totals {range}"
    );
    let mut statement = connection.prepare_cached(&totals)?;
    let mut found = statement.query(params_from_iter(&arguments))?;
    while let Some(row) = found.next()? {
        if let Some(day) = day(row)? {
            let (id, model) = (KeyId::new(row.get::<_, String>(1)?), row.get::<_, String>(2)?);
            report.add_figures(day, &id, &model, figures(row)?);
        }
    }

    let used = format!("SELECT day, key_id, used FROM daily_usage {range}");
    let mut statement = connection.prepare_cached(&used)?;
    let mut found = statement.query(params_from_iter(&arguments))?;
    while let Some(row) = found.next()? {
        if let Some(day) = day(row)? {
            report.add_used(day, &KeyId::new(row.get::<_, String>(1)?), row.get(2)?);
        }
    }

    let records = records(connection, report.key_ids(), default)?;
    let total = connection.query_row("SELECT count(*) FROM api_keys", [], |row| row.get(0))?;
    Ok(report.into_report(total, |id| records.get(id)))
}

fn day(row: &Row<'_>) -> rusqlite::Result<Option<Day>> {
    Ok(row.get::<_, String>(0)?.parse().ok())
}

fn figures(row: &Row<'_>) -> rusqlite::Result<UsageFigures> {
    Ok(UsageFigures {
        requests: row.get(3)?,
        succeeded: row.get(4)?,
        failed: row.get(5)?,
        refunded: row.get(6)?,
        rejected: row.get(7)?,
        tokens: Tokens {
            cached: row.get(11)?,
            reasoning: row.get(12)?,
            ..Tokens::new(row.get(8)?, row.get(9)?, row.get(10)?)
        },
    })
}

fn records<'a>(
    connection: &Connection,
    ids: impl Iterator<Item = &'a KeyId>,
    default: DailyLimit,
) -> rusqlite::Result<HashMap<KeyId, KeyRecord>> {
    let sql = format!("SELECT {} FROM api_keys k WHERE k.id = ?1", rows::RECORD);
    let mut present = connection.prepare_cached(&sql)?;
    let mut deleted = connection.prepare_cached(
        "SELECT id, key, label, daily_limit, NULL, NULL, 1, '' FROM deleted_keys WHERE id = ?1",
    )?;
    let record = |row: &Row<'_>| rows::record_for_show(row, default);
    let mut records = HashMap::new();
    for id in ids {
        if records.contains_key(id) {
            continue;
        }
        let found = match present.query_row([id.as_str()], record).optional()? {
            None => deleted.query_row([id.as_str()], record).optional()?,
            found => found,
        };
        records.extend(found.map(|record| (id.clone(), record)));
    }
    Ok(records)
}
