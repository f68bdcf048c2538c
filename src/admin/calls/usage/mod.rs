//! Usage reports.

mod item;
mod query;

use std::sync::Arc;

use http::{Response, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use self::{
    item::Item,
    query::{BY_KEY_AND_DAY, ReportScope},
};
use crate::{
    admin::{
        http::{
            body::{AdminBody, Chunks, NextChunk, attachment},
            call::{CallRequest, CallResponse, Json},
            csv::{CSV, CsvWriter},
            error::AdminError,
        },
        shared::Shared,
    },
    clock::Day,
    error::{Reject, catalog},
    key::KeyId,
    store::{AdminStore, ReportPage, StoreFuture, UsageReport},
};

pub(crate) use self::query::ReportQuery;

/// Number of keys whose rows are read from the store at once.
const PAGE_LEN: usize = 2000;

/// Usage report, rows with the most requests first.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Report {
    /// The day, if the report is about one day.
    day: Option<Day>,
    from: Day,
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
    const STATUS: StatusCode = StatusCode::OK;
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

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    /// Returns a usage report. In today's report, keys without requests follow the others.
    pub(crate) async fn usage(
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
        let query = if includes_idle && key_id.is_none() { query.with_idle() } else { query };
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
            let mut csv = CsvWriter::with_header(item::COLUMNS);
            items.iter().for_each(|item| csv.row(item.row()));
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
        let header = CsvWriter::with_header(item::COLUMNS).into_bytes();
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
            csv.row(Item::new(row, one_day).row());
        }
        let last = last.filter(|_| report.has_more);
        let next = last.map(|last| NextChunk::new(move || chunks(fetch, Some(last), one_day)));
        Ok((csv.into_bytes(), next))
    })
}
