//! Usage reports.

use std::{borrow::Cow, sync::Arc};

use http::Response;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{
    admin::{
        http::{
            body::{AdminBody, Chunks, NextChunk, attachment},
            call::{Call, CallRequest, CallResponse, Json},
            csv::{self, CSV, CsvWriter},
            error::AdminError,
            input::{DayParam, Format, GroupByParam, KeyRefField, PageLimit, RowNumber},
            json::LimitNumber,
            schema,
        },
        shared::Shared,
        store::{AdminStore, KeyRef, KeySummary},
    },
    clock::Day,
    error::catalog,
    key::KeyId,
    store::{
        StoreFuture,
        report::{GroupBy, ReportPage, UsageFigures, UsageQuery, UsageReport, UsageRow},
    },
};

/// Number of keys whose rows are read from the store at once.
const PAGE_LEN: usize = 2000;
/// Number of rows on a page without `limit`.
const DEFAULT_LIMIT: usize = 1000;
/// Maximum number of days between the first and the last day.
const MAX_DAYS: u32 = 365;
const BY_KEY_AND_DAY: GroupBy = GroupBy { key: true, day: true, model: false };

/// Selects a report. The default is today's.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReportQuery {
    /// The only day, instead of `from` and `to`.
    day: Option<DayParam>,
    /// The first day, at most 365 days before `to`.
    from: Option<DayParam>,
    /// The last day, today if absent.
    to: Option<DayParam>,
    /// Only usage of this key, given by id or by the whole key.
    key: Option<KeyRefField>,
    /// Dimensions by which rows are grouped: some of `key`, `day` and `model`; `key,day` if absent.
    #[schemars(example = &"key,day")]
    group_by: Option<GroupByParam>,
    /// `csv` streams all rows; `json` if absent.
    format: Option<Format>,
    /// Maximum number of rows, 1000 if absent.
    limit: Option<PageLimit>,
    /// `next` of the previous page.
    after: Option<RowNumber>,
}

/// A validated [`ReportQuery`].
struct ReportScope {
    from: Day,
    to: Day,
    key: Option<KeyRef>,
    group_by: GroupBy,
    /// Whether the report is CSV rather than JSON.
    csv: bool,
    /// Number of rows to skip.
    skip: usize,
    /// Maximum number of rows after those.
    limit: usize,
}

impl ReportScope {
    fn new(query: ReportQuery, today: Day) -> Result<Self, AdminError> {
        let [day, from, to] =
            [query.day, query.from, query.to].map(|day| day.map(|DayParam(day)| day));
        if day.is_some() && (from.is_some() || to.is_some()) {
            return Err(AdminError::invalid_field("day", "absent where `from` or `to` is given"));
        }
        let to = to.or(day).unwrap_or_else(|| today.max(from.unwrap_or(today)));
        let from = from.or(day).unwrap_or(to);
        if from > to || from < to.minus(MAX_DAYS) {
            return Err(AdminError::invalid_field("from", "at most 365 days before `to`"));
        }
        let csv = query.format.is_some_and(|Format(csv)| csv);
        if csv && (query.limit.is_some() || query.after.is_some()) {
            let name = if query.limit.is_some() { "limit" } else { "after" };
            return Err(AdminError::invalid_field(name, "absent in CSV, which contains all rows"));
        }
        let limit = query.limit.map_or(DEFAULT_LIMIT, |PageLimit(limit)| limit);
        Ok(Self {
            from,
            to,
            key: query.key.map(|KeyRefField(key)| key),
            group_by: query.group_by.map_or(BY_KEY_AND_DAY, |GroupByParam(groups)| groups),
            csv,
            skip: query
                .after
                .map_or(0, |RowNumber(after)| usize::try_from(after).unwrap_or(usize::MAX)),
            limit: if csv { usize::MAX } else { limit },
        })
    }

    fn query(&self, key_id: Option<KeyId>) -> UsageQuery {
        let page = ReportPage::Busiest { skip: self.skip, limit: self.limit };
        let query = UsageQuery::days(self.from, self.to).group_by(self.group_by).page(page);
        match key_id {
            Some(key_id) => query.key(key_id),
            None => query,
        }
    }

    /// Returns the day, if the report is about one day.
    fn day(&self) -> Option<Day> {
        (self.from == self.to).then_some(self.from)
    }
}

/// One row of a report. Dimensions by which it is not grouped are absent.
#[derive(Default, Serialize, JsonSchema)]
struct Item {
    #[serde(flatten)]
    key: Option<KeyPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Day>")]
    day: Option<Day>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(flatten)]
    #[schemars(with = "schema::UsageFigures")]
    figures: UsageFigures,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_today: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    #[serde(flatten)]
    limit: Option<LimitPart>,
}

/// The key of a row. A deleted key has the masked key and label that it had last.
#[derive(Serialize, JsonSchema)]
struct KeyPart {
    #[schemars(with = "schema::KeyId")]
    id: KeyId,
    /// The key, masked.
    key: Option<String>,
    label: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct LimitPart {
    daily_limit: Option<LimitNumber>,
    /// Remaining units on the row's day, `null` without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<Option<u64>>,
}

impl Item {
    /// Creates an item. `used_today` and `remaining` belong to the row's day; a row over several days
    /// has `used`.
    fn new(row: UsageRow, one_day: bool) -> Self {
        let one_day = one_day || row.day.is_some();
        let remaining = row.used.filter(|_| one_day).and_then(|used| {
            let limit = row.daily_limit?;
            Some(limit.units().map(|limit| limit.saturating_sub(used)))
        });
        Self {
            limit: row
                .key_id
                .is_some()
                .then_some(LimitPart { daily_limit: row.daily_limit.map(LimitNumber), remaining }),
            key: row.key_id.map(|id| KeyPart { id, key: row.masked, label: row.label }),
            day: row.day,
            model: row.model,
            figures: row.figures,
            used_today: row.used.filter(|_| one_day),
            used: row.used.filter(|_| !one_day),
        }
    }

    /// Creates the item of a key without requests on this day.
    fn idle(key: KeySummary, day: Day) -> Self {
        let row = UsageRow {
            key_id: Some(key.record.id),
            masked: Some(key.record.masked),
            label: Some(key.record.label),
            daily_limit: Some(key.record.daily_limit),
            day: Some(day),
            used: Some(0),
            ..UsageRow::default()
        };
        Self::new(row, true)
    }

    fn header() -> [&'static str; 17] {
        Self::default().columns().map(|(name, _)| name)
    }

    fn cells(&self) -> [Cow<'static, str>; 17] {
        self.columns().map(|(_, cell)| cell)
    }

    /// Returns the columns of the item in a CSV report, each with its name.
    fn columns(&self) -> [(&'static str, Cow<'static, str>); 17] {
        let key = self.key.as_ref();
        let limit = self.limit.as_ref();
        let daily_limit =
            limit.and_then(|limit| limit.daily_limit).map(|LimitNumber(limit)| limit.number());
        let figures = &self.figures;
        let remaining = limit.and_then(|limit| limit.remaining).flatten();
        [
            ("day", csv::value(self.day)),
            ("id", csv::text(key.map(|key| key.id.as_str()))),
            ("key", csv::text(key.and_then(|key| key.key.as_deref()))),
            ("label", csv::text(key.and_then(|key| key.label.as_deref()))),
            ("model", csv::text(self.model.as_deref())),
            ("requests", csv::value(Some(figures.requests))),
            ("used", csv::value(self.used_today.or(self.used))),
            ("daily_limit", csv::value(daily_limit)),
            ("remaining", csv::value(remaining)),
            ("prompt_tokens", csv::value(Some(figures.tokens.prompt))),
            ("completion_tokens", csv::value(Some(figures.tokens.completion))),
            ("total_tokens", csv::value(Some(figures.tokens.total))),
            ("succeeded", csv::value(Some(figures.succeeded))),
            ("failed", csv::value(Some(figures.failed))),
            ("refunded", csv::value(Some(figures.refunded))),
            ("rejected", csv::value(Some(figures.rejected))),
            ("tokens_unknown", csv::value(Some(figures.tokens_unknown))),
        ]
    }
}

/// Usage report, rows with the most requests first.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Report {
    /// The day, if the report is about one day.
    #[schemars(with = "Option<schema::Day>")]
    day: Option<Day>,
    #[schemars(with = "schema::Day")]
    from: Day,
    #[schemars(with = "schema::Day")]
    to: Day,
    /// Number of requests in all rows, including those on other pages.
    total_requests: u64,
    /// Number of keys with scope.
    active_keys: u64,
    total_keys: u64,
    items: Vec<Item>,
    /// Value of `after` for the next page, `null` on the last one.
    next: Option<usize>,
}

/// A report as JSON or CSV.
pub(crate) enum ReportResponse {
    Json(Report),
    Csv(Response<AdminBody>),
}

impl CallResponse for ReportResponse {
    const HEADERS: &'static [(&'static str, &'static str)] =
        &[("Content-Disposition", "The file name of a CSV report.")];

    fn into_response(self) -> Response<AdminBody> {
        match self {
            Self::Json(report) => Json(report).into_response(),
            Self::Csv(response) => response,
        }
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        let mut content = Json::<Report>::content(generator);
        content.push((CSV, json_schema!({"type": "string"})));
        content
    }
}

impl<S: AdminStore> Shared<S> {
    pub(super) fn usage_calls() -> Vec<Call<Self>> {
        vec![
            Call::new("GET /usage", "getUsage", "Usage report", Self::usage)
                .fails_with(catalog::KEY_NOT_FOUND),
        ]
    }

    /// Returns a usage report. In today's report, keys without requests follow the others.
    async fn usage(
        self: Arc<Self>,
        request: CallRequest<(), ReportQuery>,
    ) -> Result<ReportResponse, AdminError> {
        let today = self.store.today();
        let scope = ReportScope::new(request.query, today)?;
        let (key_id, key) = match scope.key.clone() {
            None => (None, None),
            Some(key) => {
                let id = key.id();
                let key = self.store.get(key).await?;
                (Some(key.as_ref().map_or(id, |key| key.record.id.clone())), key)
            }
        };
        if scope.csv && key_id.is_none() && scope.group_by.key {
            return Ok(ReportResponse::Csv(self.stream_csv(scope)));
        }
        let includes_idle =
            scope.day() == Some(today) && scope.group_by == BY_KEY_AND_DAY && !scope.csv;
        let query = scope.query(key_id.clone());
        let query = if includes_idle && key_id.is_none() { query.idle() } else { query };
        let report = self.store.report(query).await?;
        if key_id.is_some() && key.is_none() && report.rows.is_empty() {
            return Err(catalog::KEY_NOT_FOUND.into());
        }
        let next = report.has_more.then(|| scope.skip + report.rows.len());
        let mut items: Vec<Item> =
            report.rows.into_iter().map(|row| Item::new(row, scope.day().is_some())).collect();
        if includes_idle && items.is_empty() && scope.skip == 0 {
            items.extend(key.map(|key| Item::idle(key, today)));
        }
        if scope.csv {
            let mut csv = CsvWriter::with_header(Item::header());
            items.iter().for_each(|item| csv.row(item.cells()));
            return Ok(ReportResponse::Csv(csv_response(&scope, csv.into_bytes().into())));
        }
        Ok(ReportResponse::Json(Report {
            day: scope.day(),
            from: scope.from,
            to: scope.to,
            total_requests: report.total_requests,
            active_keys: report.active_keys,
            total_keys: report.total_keys,
            items,
            next,
        }))
    }

    /// Streams all rows as CSV, ordered by day and key.
    fn stream_csv(self: &Arc<Self>, scope: ReportScope) -> Response<AdminBody> {
        let query = scope.query(None);
        let shared = self.clone();
        let fetch = move |after| {
            let page = ReportPage::ById { after, limit: PAGE_LEN };
            shared.store.report(query.clone().page(page))
        };
        let chunks = chunks(Arc::new(fetch), None, scope.day().is_some());
        let header = CsvWriter::with_header(Item::header()).into_bytes();
        csv_response(&scope, AdminBody::chunked(header, chunks))
    }
}

fn csv_response(scope: &ReportScope, body: AdminBody) -> Response<AdminBody> {
    let name = match scope.day() {
        Some(day) => format!("usage-{day}.csv"),
        None => format!("usage-{}-{}.csv", scope.from, scope.to),
    };
    attachment(&name, CSV, body)
}

/// Day and key of the last row that was read.
type Cursor = Option<(Option<Day>, KeyId)>;

/// Reads the rows of a report as CSV. `fetch` reads the page after a cursor.
fn chunks(
    fetch: Arc<dyn Fn(Cursor) -> StoreFuture<UsageReport> + Send + Sync>,
    after: Cursor,
    one_day: bool,
) -> Chunks {
    Box::pin(async move {
        let report = fetch(after).await?;
        let last = report.rows.last().and_then(|row| Some((row.day, row.key_id.clone()?)));
        let mut csv = CsvWriter::new();
        for row in report.rows {
            csv.row(Item::new(row, one_day).cells());
        }
        let last = last.filter(|_| report.has_more);
        let next = last.map(|last| NextChunk::new(move || chunks(fetch, Some(last), one_day)));
        Ok((csv.into_bytes(), next))
    })
}
