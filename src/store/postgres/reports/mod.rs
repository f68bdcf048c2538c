//! Reports of past usage.
//!
//! The database sums up, orders and pages the rows, as each statement is a round trip and each row is
//! transferred. Reports of all keys together use the sums in `model_totals`.

mod all_keys;
mod cancel;
mod period;
pub(super) mod requests;

use std::collections::{HashMap, HashSet};

use tokio_postgres::{Client, Row};

use self::{cancel::CancelOnDrop, period::PeriodDay};
use super::{
    PostgresStore, columns,
    quota::has_nul,
    sql::{self, Param, text, texts},
    unavailable,
};
use crate::{
    key::{DefaultLimits, KeyId, KeyRecord},
    store::{
        StoreFuture, Tokens, UsageEvent, UsageSink,
        report::{
            FIGURES, ReportPage, RequestQuery, RequestRecord, UsageFigures, UsageQuery,
            UsageReader, UsageReport, UsageRow,
        },
        support::ReportBuilder,
    },
};

/// Index of the first column after [`FIGURES`].
const NEXT: usize = FIGURES.len();
/// Units of a row of `daily_usage`, or 0 if they are not a number that JSON represents exactly.
const USED: &str = "CASE WHEN used BETWEEN 0 AND 9007199254740992 THEN used ELSE 0 END";

impl UsageSink for PostgresStore {
    fn record(&self, event: UsageEvent) {
        // No units of such a subject are counted, either.
        if !event.key_id.as_ref().is_some_and(has_nul) {
            self.0.core.engine.record(event);
        }
    }

    fn expect_events(&self) {
        self.0.core.engine.expect_events();
    }
}

impl UsageReader for PostgresStore {
    fn report(&self, query: UsageQuery) -> StoreFuture<UsageReport> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.flush_for_read().await;
            let _permit = match query.key_id {
                Some(_) => None,
                None => Some(store.0.report_permits.acquire().await?),
            };
            let (guard, reader) = CancelOnDrop::new(store.reader().await?, &store.0.tls);
            let report = read(&reader, &query, store.0.core.default_limits).await;
            guard.finish();
            report.map_err(unavailable)
        })
    }

    fn requests(&self, query: RequestQuery) -> StoreFuture<Vec<RequestRecord>> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.flush_for_read().await;
            let (guard, reader) = CancelOnDrop::new(store.reader().await?, &store.0.tls);
            let requests = requests::read(&reader, &query).await;
            guard.finish();
            requests.map_err(unavailable)
        })
    }
}

async fn read(
    client: &Client,
    query: &UsageQuery,
    defaults: DefaultLimits,
) -> sql::Result<UsageReport> {
    let mut report = match (&query.key_id, &query.page) {
        (Some(id), _) => of_key(client, query, id).await?,
        (None, _) if !query.group_by.key => of_models(client, query).await?,
        (None, ReportPage::Busiest { skip, limit }) => {
            all_keys::busiest(client, query, *skip, *limit).await?
        }
        (None, ReportPage::ById { after, limit }) => {
            all_keys::by_id(client, query, after.as_ref(), *limit).await?
        }
    };
    let records = records(client, &report.rows, defaults).await?;
    report.name_keys(|id| records.get(id));
    let count = sql::one(client, "SELECT count(*) FROM api_keys", &[]).await?;
    report.total_keys = sql::count(count.try_get(0)?);
    Ok(report)
}

/// Groups the rows of a single key.
async fn of_key(client: &Client, query: &UsageQuery, id: &KeyId) -> sql::Result<UsageReport> {
    let mut report = ReportBuilder::new(query.clone());
    let (from, to, key_id) =
        (query.from.to_string(), query.to.to_string(), sql::storable(id.as_str()));
    let params = [text(&from), text(&to), text(&key_id)];
    let sql = format!(
        "SELECT {}, day, model FROM usage_totals WHERE key_id = $3 AND day BETWEEN $1 AND $2",
        FIGURES.join(", ")
    );
    for row in sql::query(client, &sql, &params).await? {
        if let Ok(day) = row.try_get::<_, &str>(NEXT)?.parse() {
            report.add_figures(day, id, row.try_get(NEXT + 1)?, figures(&row)?);
        }
    }
    let sql = format!(
        "SELECT day, {USED} FROM daily_usage
         WHERE key_id = $3 AND quota = 'daily' AND day BETWEEN $1 AND $2"
    );
    for row in sql::query(client, &sql, &params).await? {
        if let Ok(day) = row.try_get::<_, &str>(0)?.parse() {
            report.add_used(day, id, sql::count(row.try_get(1)?));
        }
    }
    Ok(report.into_report())
}

/// Returns the rows of all keys together.
async fn of_models(client: &Client, query: &UsageQuery) -> sql::Result<UsageReport> {
    let mut report = ReportBuilder::new(query.clone());
    let (from, to) = (query.from.to_string(), query.to.to_string());
    let sql = format!(
        "SELECT {}, day, model FROM model_totals WHERE day BETWEEN $1 AND $2",
        FIGURES.join(", ")
    );
    // The report is not grouped by key.
    let any_key = KeyId::from("");
    for row in sql::query(client, &sql, &[text(&from), text(&to)]).await? {
        if let Ok(day) = row.try_get::<_, &str>(NEXT)?.parse() {
            report.add_figures(day, &any_key, row.try_get(NEXT + 1)?, figures(&row)?);
        }
    }
    let mut report = report.into_report();
    report.active_keys = active_keys(client, query).await?;
    Ok(report)
}

async fn total_requests(client: &Client, query: &UsageQuery) -> sql::Result<u64> {
    let sql = "SELECT coalesce(sum(requests), 0)::bigint FROM model_totals
        WHERE day BETWEEN $1 AND $2";
    let (from, to) = (query.from.to_string(), query.to.to_string());
    let row = sql::one(client, sql, &[text(&from), text(&to)]).await?;
    Ok(sql::count(row.try_get(0)?))
}

/// Returns the number of keys that were used on these days.
async fn active_keys(client: &Client, query: &UsageQuery) -> sql::Result<u64> {
    let days = [query.from, query.to].map(|day| PeriodDay::of_year(&day.to_string()));
    let [first, last] = &days;
    // A year has one row of each key.
    let group = if first.period == last.period { "" } else { "GROUP BY key_id" };
    let sql = format!(
        "SELECT count(*) FROM (SELECT FROM active_days WHERE {} {group}) AS active",
        PeriodDay::condition("year", &days)
    );
    Ok(sql::count(sql::one(client, &sql, &[]).await?.try_get(0)?))
}

/// Reads the columns [`FIGURES`] at the start of a row, of which those without a value count as 0.
fn figures(row: &Row) -> sql::Result<UsageFigures> {
    let optional = |column| row.try_get(column).map(|count: Option<i64>| count.map(sql::count));
    let count = |column| optional(column).map(Option::unwrap_or_default);
    Ok(UsageFigures {
        requests: count(0)?,
        succeeded: count(1)?,
        failed: count(2)?,
        refunded: count(3)?,
        rejected: count(4)?,
        tokens_unknown: count(5)?,
        tokens: Tokens {
            cached: optional(9)?,
            reasoning: optional(10)?,
            ..Tokens::new(count(6)?, count(7)?, count(8)?)
        },
    })
}

/// Returns the records of the keys of these rows, including keys that were deleted.
async fn records(
    client: &Client,
    usage: &[UsageRow],
    defaults: DefaultLimits,
) -> sql::Result<HashMap<KeyId, KeyRecord>> {
    let mut missing: HashSet<&str> =
        usage.iter().filter_map(|row| row.key_id.as_ref()).map(KeyId::as_str).collect();
    let deleted =
        format!("SELECT {} FROM deleted_keys WHERE key IS NOT NULL AND id", columns::DELETED);
    let mut records = HashMap::new();
    for select in ["SELECT * FROM api_keys WHERE id", &deleted] {
        if missing.is_empty() {
            break;
        }
        let ids: Vec<&str> = missing.iter().copied().collect();
        let params: [Param<'_>; 1] = [texts(&ids)];
        for row in sql::query(client, &format!("{select} = ANY ($1)"), &params).await? {
            let record = columns::record_for_display(&row, defaults)?;
            missing.remove(record.id.as_str());
            records.insert(record.id.clone(), record);
        }
    }
    Ok(records)
}
