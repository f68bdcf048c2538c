//! Reports with rows for each key, of all keys.
//!
//! A statement first chooses the keys of a page, and then sums up only those. In a report by day, it reads
//! one day, which usually fills the page, or more of them at once as long as they have few rows. In another one,
//! it chooses the busiest keys by the sums of quarters, which have two or three rows of a key where its days have 90.

use std::{cmp::Reverse, iter};

use tokio_postgres::{Client, Row};

use super::{
    NEXT, USED, active_keys, figures,
    period::PeriodDay,
    sql::{self, Param, bigint, int, text, texts},
    total_requests,
};
use crate::{
    clock::Day,
    key::KeyId,
    store::{
        report::{FIGURES, GroupBy, UsageQuery, UsageReport, UsageRow},
        support::busiest_first,
    },
};

/// Number of rows below which days are few enough to be read together with the next ones.
const FEW_ROWS: usize = 1000;
/// Maximum number of keys whose requests on a day are read one by one.
const MAX_LOOK_UPS: usize = 10_000;
/// Factor by which the number of days that are read together grows.
const DAYS_GROWTH: usize = 4;

pub(super) async fn busiest(
    client: &Client,
    query: &UsageQuery,
    mut skip: usize,
    limit: usize,
) -> sql::Result<UsageReport> {
    let mut report = UsageReport::default();
    let mut periods = Periods::of(query, query.to);
    while let Some(period) = periods.next()
        && !report.has_more
    {
        let missing = limit - report.rows.len();
        let mut rows = busiest_of(client, &period, skip, missing).await?;
        report.has_more = rows.len() > missing;
        rows.truncate(missing);
        let passed = match rows.len() {
            0 if skip > 0 => count(client, &period).await?,
            len => skip.saturating_add(len),
        };
        skip = skip.saturating_sub(passed);
        periods.note_rows(passed);
        report.rows.append(&mut rows);
    }
    if query.idle && query.group_by.day && query.from == query.to && !report.has_more {
        let missing = limit - report.rows.len();
        let mut idle = idle_rows(client, query.to, skip, missing.saturating_add(1)).await?;
        report.has_more = idle.len() > missing;
        idle.truncate(missing);
        report.rows.append(&mut idle);
    }
    report.total_requests = total_requests(client, query).await?;
    report.active_keys = active_keys(client, query).await?;
    Ok(report)
}

/// Returns the busiest rows of a period, and one more than `limit` if there are more.
async fn busiest_of(
    client: &Client,
    period: &Period,
    skip: usize,
    limit: usize,
) -> sql::Result<Vec<UsageRow>> {
    let page = format!(
        "SELECT period.day, key_id, model FROM {} CROSS JOIN LATERAL ({}) AS ranked
         ORDER BY number, used DESC, requests DESC, key_id, model LIMIT $3 OFFSET $4",
        period.table(),
        period.ranked()
    );
    let of_model = if period.by.model { "AND model = period.model" } else { "" };
    let page_len = limit.saturating_add(1);
    let (limit, skip) = (bigint(page_len), bigint(skip));
    let params = || [int(&limit), int(&skip)];
    let mut busiest = Vec::new();
    if !period.by.model && (!period.by.day || period.days.len() == 1) {
        busiest = rows(client, period, &period.most_used(), of_model, params()).await?;
    }
    if busiest.len() < page_len {
        busiest = rows(client, period, &page, of_model, params()).await?;
    }
    busiest.sort_by(busiest_first);
    Ok(busiest)
}

/// Returns the number of rows of a period.
async fn count(client: &Client, period: &Period) -> sql::Result<usize> {
    let (table, ranked) = (period.table(), period.ranked());
    let sql = format!("SELECT count(*) FROM {table} CROSS JOIN LATERAL ({ranked}) AS ranked");
    let count = sql::one(client, &sql, &period.params()).await?.try_get(0)?;
    Ok(usize::try_from(sql::count(count)).unwrap_or(usize::MAX))
}

/// Returns the rows of at most `limit` keys after this one.
pub(super) async fn by_id(
    client: &Client,
    query: &UsageQuery,
    after: Option<&(Option<Day>, KeyId)>,
    limit: usize,
) -> sql::Result<UsageReport> {
    let mut report = UsageReport::default();
    let (day, mut after) = match after {
        Some((day, id)) => (day.unwrap_or(query.to), sql::storable(id.as_str())),
        None => (query.to, "".into()),
    };
    let mut periods = Periods::of(query, day);
    let mut missing = limit;
    while let Some(period) = periods.next()
        && !report.has_more
    {
        let mut rows = by_id_of(client, &period, &after, missing).await?;
        let of_key = rows.chunk_by(|a, b| (a.day, &a.key_id) == (b.day, &b.key_id));
        let lens: Vec<usize> = of_key.map(<[UsageRow]>::len).collect();
        report.has_more = lens.len() > missing;
        rows.truncate(lens.iter().take(missing).sum());
        missing = missing.saturating_sub(lens.len());
        periods.note_rows(lens.len());
        report.rows.append(&mut rows);
        after = "".into();
    }
    Ok(report)
}

/// Returns the rows of the keys of a period after this one, and of one more than `limit` if there are more.
async fn by_id_of(
    client: &Client,
    period: &Period,
    after: &str,
    limit: usize,
) -> sql::Result<Vec<UsageRow>> {
    let page = format!(
        "SELECT period.day, key_id FROM {} CROSS JOIN LATERAL ({}) AS next
         ORDER BY number, key_id LIMIT $3",
        period.table(),
        period.next_keys()
    );
    let limit = bigint(limit.saturating_add(1));
    let mut rows = rows(client, period, &page, "", [int(&limit), text(&after)]).await?;
    let position = |row: &UsageRow| (Reverse(row.day), row.key_id.clone(), row.model.clone());
    rows.sort_by_cached_key(position);
    Ok(rows)
}

/// Returns the rows of the keys that the statement `page` selects, each with its day, in any order.
async fn rows(
    client: &Client,
    period: &Period,
    page: &str,
    of_model: &str,
    page_params: [Param<'_>; 2],
) -> sql::Result<Vec<UsageRow>> {
    let in_period = period.condition();
    // A sum is a `numeric`.
    let sums = FIGURES.map(|column| {
        format!(
            "CASE WHEN sum({column}) > 9223372036854775807 THEN 9223372036854775807
                 ELSE sum({column})::bigint END AS {column}"
        )
    });
    let (model, group, used) = if period.by.model {
        ("model", "GROUP BY model", "NULL::bigint".to_owned())
    } else {
        let used = format!(
            "(SELECT coalesce(sum({USED}), 0)::bigint FROM daily_usage
              WHERE key_id = period.key_id AND quota = 'daily' AND {in_period})"
        );
        ("NULL::text AS model", "", used)
    };
    let sql = format!(
        "WITH page AS ({page})
         SELECT sums.{figures}, period.day, period.key_id, sums.model, {used}
         FROM page AS period CROSS JOIN LATERAL (
             SELECT {sums}, {model} FROM usage_totals
             WHERE key_id = period.key_id AND {in_period} {of_model} {group}
         ) AS sums",
        figures = FIGURES.join(", sums."),
        sums = sums.join(", "),
    );
    let [first, second] = period.params();
    let [third, fourth] = page_params;
    let rows = sql::query(client, &sql, &[first, second, third, fourth]).await?;
    let row = |row: &Row| {
        let day: Option<&str> = row.try_get(NEXT)?;
        let used: Option<i64> = row.try_get(NEXT + 3)?;
        Ok(UsageRow {
            figures: figures(row)?,
            day: day.and_then(|day| day.parse().ok()),
            key_id: Some(KeyId::from(row.try_get::<_, &str>(NEXT + 1)?)),
            model: row.try_get(NEXT + 2)?,
            used: used.map(sql::count),
            ..UsageRow::default()
        })
    };
    rows.iter().map(row).collect()
}

/// What is read together: several days of a report by day, or all days of another one.
struct Period {
    by: GroupBy,
    /// The days, latest first, if the report is by day.
    days: Vec<String>,
    /// First and last day that are left of the report.
    range: [String; 2],
}

impl Period {
    /// Returns the parameters `$1` and `$2`.
    fn params(&self) -> [Param<'_>; 2] {
        let [from, to] = &self.range;
        [if self.by.day { texts(&self.days) } else { text(from) }, text(to)]
    }

    /// Table `period` of the days with their numbers from 1, or of one row without a day.
    fn table(&self) -> &'static str {
        if self.by.day {
            "unnest($1) WITH ORDINALITY AS period (day, number)"
        } else {
            "(SELECT NULL::text AS day, 1::bigint AS number) AS period"
        }
    }

    /// Condition for the rows of a row of the table `period`.
    fn condition(&self) -> &'static str {
        if self.by.day { "day = period.day" } else { "day BETWEEN $1 AND $2" }
    }

    /// Selects the keys of a row of the table `period`, with the figures by which they are ordered.
    fn ranked(&self) -> String {
        match (self.by.day, self.by.model) {
            (true, true) => "SELECT key_id, model, 0 AS used, sum(requests) AS requests
                FROM usage_totals WHERE day = period.day GROUP BY key_id, model"
                .to_owned(),
            // There is one row for each day and key.
            (true, false) => format!(
                "SELECT key_id, NULL::text AS model, coalesce(units.used, 0) AS used,
                     coalesce(totals.requests, 0) AS requests
                 FROM (
                     SELECT key_id, sum(requests) AS requests FROM usage_totals
                     WHERE day = period.day GROUP BY key_id
                 ) AS totals FULL JOIN (
                     SELECT key_id, {USED} AS used FROM daily_usage
                     WHERE quota = 'daily' AND day = period.day
                 ) AS units USING (key_id)"
            ),
            (false, true) => format!(
                "SELECT key_id, model, 0 AS used, sum(number) AS requests FROM ({}) AS requests
                 GROUP BY key_id, model",
                self.of_quarters("quarter_requests", ", model")
            ),
            (false, false) => format!(
                "SELECT key_id, NULL::text AS model, coalesce(sum(number) FILTER (WHERE is_used), 0) AS used,
                     coalesce(sum(number) FILTER (WHERE NOT is_used), 0) AS requests
                 FROM ({} UNION ALL {}) AS sums GROUP BY key_id",
                self.of_quarters("quarter_units", ", true AS is_used"),
                self.of_quarters("quarter_requests", ", false AS is_used")
            ),
        }
    }

    /// Selects the keys of a page whose keys all have units, else fewer of them. It reads the requests only of those
    /// keys whose units do not decide; on a single day, it selects none if these are many.
    fn most_used(&self) -> String {
        let (day, units, requests, few) = if self.by.day {
            (
                "($1)[1]",
                format!(
                    "SELECT key_id, {USED} AS used FROM daily_usage
                     WHERE quota = 'daily' AND day = ($1)[1]"
                ),
                "SELECT requests AS number FROM usage_totals WHERE day = ($1)[1]".to_owned(),
                format!(
                    "AND (SELECT count(*) FROM units WHERE used >= (SELECT used FROM last))
                         <= {MAX_LOOK_UPS}"
                ),
            )
        } else {
            let [units, requests] =
                ["quarter_units", "quarter_requests"].map(|table| self.numbers(table, ""));
            let units = format!(
                "SELECT key_id, sum(number) AS used FROM ({units}) AS sums GROUP BY key_id"
            );
            ("NULL::text", units, requests, String::new())
        };
        format!(
            "WITH units AS MATERIALIZED ({units}),
             last AS MATERIALIZED (
                 SELECT used FROM units ORDER BY used DESC
                 LIMIT 1 OFFSET $4 + least($3, {max} - $4) - 1
             )
             SELECT {day} AS day, key_id, NULL::text AS model
             FROM units CROSS JOIN LATERAL (
                 SELECT coalesce(sum(number), 0) AS requests
                 FROM ({requests} AND key_id = units.key_id) AS sums
             ) AS requests
             WHERE used > 0 AND used >= (SELECT used FROM last) {few}
             ORDER BY used DESC, requests DESC, key_id LIMIT $3 OFFSET $4",
            max = i64::MAX
        )
    }

    /// Selects the keys that have rows on the days of the report from a table of sums, with their numbers.
    fn of_quarters(&self, table: &str, columns: &str) -> String {
        let condition = PeriodDay::condition("quarter", &self.quarter_days());
        format!("{} AND {condition}", self.numbers(table, columns))
    }

    /// Selects the keys of a table of sums with their numbers on the days of the report, which may be 0.
    fn numbers(&self, table: &str, columns: &str) -> String {
        let [first, last] = self.quarter_days();
        format!(
            "SELECT key_id,
                 coalesce(sums[CASE quarter WHEN '{last}' THEN least({to}, array_upper(sums, 1))
                     ELSE array_upper(sums, 1) END], 0)
                 - CASE quarter WHEN '{first}'
                     THEN coalesce(sums[least({from} - 1, array_upper(sums, 1))], 0) ELSE 0 END AS number
                 {columns}
             FROM {table} WHERE quarter BETWEEN '{first}' AND '{last}'",
            first = first.period,
            from = first.day,
            last = last.period,
            to = last.day,
        )
    }

    fn quarter_days(&self) -> [PeriodDay; 2] {
        self.range.each_ref().map(|day| PeriodDay::of_quarter(day))
    }

    /// Selects the first `$3` keys of a row of the table `period`, in the first one after the key `$4`.
    fn next_keys(&self) -> String {
        let in_period = self.condition();
        let after = match self.by.day {
            true => "key_id > CASE WHEN period.number = 1 THEN $4 ELSE '' END",
            false => "key_id > $4",
        };
        let of = |table: &str, quota: &str| {
            format!(
                "(SELECT DISTINCT key_id FROM {table} WHERE {quota} {in_period} AND {after}
                  ORDER BY key_id LIMIT $3)"
            )
        };
        let totals = of("usage_totals", "");
        if self.by.model {
            return totals;
        }
        let units = of("daily_usage", "quota = 'daily' AND");
        format!("SELECT key_id FROM ({totals} UNION {units}) AS ids ORDER BY key_id LIMIT $3")
    }
}

/// The periods of a report, latest first.
struct Periods {
    by: GroupBy,
    from: Day,
    /// Last day of the next period, if there is one.
    to: Option<Day>,
    /// Number of days of the next period.
    len: usize,
}

impl Periods {
    fn of(query: &UsageQuery, to: Day) -> Self {
        Self { by: query.group_by, from: query.from, to: Some(to), len: 1 }
    }

    fn next(&mut self) -> Option<Period> {
        let to = self.to.take().filter(|to| *to >= self.from)?;
        let range = [self.from.to_string(), to.to_string()];
        let mut days = Vec::new();
        if self.by.day {
            let earlier = |day: &Day| Some(day.minus(1)).filter(|earlier| earlier < day);
            let mut left = iter::successors(Some(to), earlier).take_while(|day| *day >= self.from);
            days.extend(left.by_ref().take(self.len).map(|day| day.to_string()));
            self.to = left.next();
        }
        Some(Period { by: self.by, days, range })
    }

    /// Notes the number of rows of the last period.
    fn note_rows(&mut self, rows: usize) {
        self.len = if rows < FEW_ROWS { self.len * DAYS_GROWTH } else { 1 };
    }
}

/// Returns the rows of keys that were not used on this day, in the order in which they were issued.
async fn idle_rows(
    client: &Client,
    day: Day,
    skip: usize,
    limit: usize,
) -> sql::Result<Vec<UsageRow>> {
    let sql = "SELECT id FROM api_keys k
        WHERE NOT EXISTS (SELECT 1 FROM usage_totals WHERE day = $1 AND key_id = k.id)
            AND NOT EXISTS (SELECT 1 FROM daily_usage
                WHERE key_id = k.id AND quota = 'daily' AND day = $1)
        ORDER BY seq LIMIT $2 OFFSET $3";
    let (on, limit, skip) = (day.to_string(), bigint(limit), bigint(skip));
    let rows = sql::query(client, sql, &[text(&on), int(&limit), int(&skip)]).await?;
    let row = |row: &Row| Ok(UsageRow::idle(day, KeyId::from(row.try_get::<_, &str>(0)?)));
    rows.iter().map(row).collect()
}
