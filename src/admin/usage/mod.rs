mod item;
mod rows;
mod wanted;

use std::{collections::HashSet, sync::Arc};

use http::{HeaderValue, Response, StatusCode, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

pub use self::rows::AdminRows;
pub(super) use self::wanted::ReportWanted;
use self::{
    item::Item,
    wanted::{KEY_AND_DAY, Wanted},
};
use super::{
    call::{Answers, Asked, Json},
    csv::{Cell, Csv},
    refusal::Refusal,
    service::{AdminBody, Shared},
};
use crate::{
    body::ResponseBody,
    clock::Day,
    error::Reject,
    key::KeyId,
    store::{AdminStore, KeyPageQuery, KeySummary, Page},
};

const CSV: &str = "text/csv; charset=utf-8";
/// Rows that are read at once.
const ROWS: usize = 5000;
/// Keys without use that today's report lists after the others.
const MOST_IDLE: usize = 1000;

/// What was used, busiest rows first.
#[derive(Serialize, JsonSchema)]
pub(super) struct Report {
    /// The day of a report of one day.
    day: Option<Day>,
    from: Day,
    to: Day,
    /// Of all rows, not only of those on this page.
    total_requests: u64,
    /// How many keys were used.
    active_keys: u64,
    total_keys: u64,
    items: Vec<Item>,
    /// What `after` is to be for the next page; `null` on the last one.
    next: Option<usize>,
}

/// A report in the asked form.
pub(super) enum Told {
    Json(Report),
    Csv(Response<AdminBody>),
}

impl Answers for Told {
    const STATUS: StatusCode = StatusCode::OK;
    const HEADERS: &'static [(&'static str, &'static str)] =
        &[("Content-Disposition", "The file name of a CSV report.")];

    fn response(self) -> Response<AdminBody> {
        match self {
            Self::Json(report) => Json(report).response(),
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
    /// What was used; in today's report the keys without use follow, at most 1000 of them.
    pub(super) async fn usage(
        self: Arc<Self>,
        asked: Asked<(), ReportWanted>,
    ) -> Result<Told, Refusal> {
        let today = self.store.today();
        let wanted = Wanted::new(asked.query, today)?;
        let (key_id, known) = match wanted.key.clone() {
            None => (None, None),
            Some(key) => {
                let id = key.id();
                let known = self.store.get(key).await?;
                (Some(known.as_ref().map_or(id, |key| key.record.id.clone())), known)
            }
        };
        if wanted.csv && key_id.is_none() && wanted.group_by == KEY_AND_DAY {
            return Ok(Told::Csv(self.streamed(wanted)));
        }
        let report = self.store.report(wanted.query(key_id.clone())).await?;
        if key_id.is_some() && known.is_none() && report.rows.is_empty() {
            return Err(Refusal::unknown_key());
        }
        let next = report.has_more.then(|| wanted.skip + report.rows.len());
        let mut items: Vec<Item> =
            report.rows.into_iter().map(|row| Item::new(row, wanted.day().is_some())).collect();
        if wanted.day() == Some(today) && wanted.group_by == KEY_AND_DAY && next.is_none() {
            let others = match key_id {
                None => self.first_keys().await?,
                Some(_) => known.into_iter().collect(),
            };
            add_idle(&mut items, others, today);
        }
        if wanted.csv {
            let mut csv = csv_begin();
            items.iter().for_each(|item| item.write(&mut csv));
            let rows = ResponseBody::own(csv.into_text().into());
            return Ok(Told::Csv(csv_answer(&wanted, rows)));
        }
        Ok(Told::Json(Report {
            day: wanted.day(),
            from: wanted.from,
            to: wanted.to,
            total_requests: report.total_requests,
            active_keys: report.active_keys,
            total_keys: report.total_keys,
            items,
            next,
        }))
    }

    /// A row for each key and day, read page by page.
    fn streamed(self: &Arc<Self>, wanted: Wanted) -> Response<AdminBody> {
        let query = wanted.query(None);
        let shared = self.clone();
        let fetch = move |after| {
            let page = Page::ById { after, limit: ROWS };
            shared.store.report(query.clone().page(page))
        };
        let begin = csv_begin().into_text().into();
        let rows = AdminRows::new(begin, wanted.day().is_some(), fetch);
        csv_answer(&wanted, ResponseBody::passed(rows))
    }

    async fn first_keys(&self) -> Result<Vec<KeySummary>, Refusal> {
        let query = KeyPageQuery { limit: MOST_IDLE, ..KeyPageQuery::default() };
        Ok(self.store.list(query).await?.keys)
    }
}

/// Lists the keys that are not listed yet.
fn add_idle(items: &mut Vec<Item>, keys: Vec<KeySummary>, today: Day) {
    let listed: HashSet<KeyId> =
        items.iter().filter_map(|item| Some(item.key.as_ref()?.id.clone())).collect();
    let idle = keys.into_iter().filter(|key| !listed.contains(&key.record.id));
    items.extend(idle.map(|key| Item::idle(key, today)));
}

fn csv_begin() -> Csv {
    let mut csv = Csv::default();
    csv.row(item::COLUMNS.map(Cell::Text));
    csv
}

fn csv_answer(wanted: &Wanted, body: AdminBody) -> Response<AdminBody> {
    let mut response = Response::new(body);
    let name = match wanted.day() {
        Some(day) => format!("attachment; filename=\"usage-{day}.csv\""),
        None => format!("attachment; filename=\"usage-{}-{}.csv\"", wanted.from, wanted.to),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CSV));
    if let Ok(name) = HeaderValue::try_from(name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    response
}
