mod item;
mod query;
mod rows;

use std::sync::Arc;

use http::{Response, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

pub(super) use self::query::ReportQuery;
use self::{
    item::Item,
    query::{BY_KEY_AND_DAY, ReportScope},
};
use super::{
    call::{CallRequest, CallResponse, Json},
    csv::{AdminBody, AdminRows, CSV, Csv, attachment},
    error::AdminError,
    shared::Shared,
};
use crate::{
    body::ResponseBody,
    clock::Day,
    error::{Reject, catalog},
    store::{AdminStore, ReportPage},
};

/// Number of keys whose rows are read from the store at once.
const PAGE_LEN: usize = 2000;

/// Usage report, rows with the most requests first.
#[derive(Serialize, JsonSchema)]
pub(super) struct Report {
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
pub(super) enum ReportResponse {
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
    pub(super) async fn usage(
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
            let mut csv = Csv::file(item::COLUMNS);
            items.iter().for_each(|item| item.write_row(&mut csv));
            let rows = ResponseBody::full(csv.into_text().into());
            return Ok(ReportResponse::Csv(csv_response(&scope, rows)));
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
        let chunks = rows::chunks(Arc::new(fetch), None, scope.day().is_some());
        let rows = AdminRows::new(Csv::file(item::COLUMNS).into_text(), chunks);
        csv_response(&scope, ResponseBody::inner(rows))
    }
}

fn csv_response(scope: &ReportScope, body: AdminBody) -> Response<AdminBody> {
    let name = match scope.day() {
        Some(day) => format!("usage-{day}.csv"),
        None => format!("usage-{}-{}.csv", scope.from, scope.to),
    };
    attachment(&name, CSV, body)
}
