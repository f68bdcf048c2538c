mod item;
mod rows;
mod wanted;

use std::sync::Arc;

use http::{Response, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

pub(super) use self::wanted::ReportWanted;
use self::{
    item::Item,
    wanted::{KEY_AND_DAY, Wanted},
};
use super::{
    call::{Answers, Asked, Json},
    csv::{AdminBody, AdminRows, CSV, Csv, attachment},
    refusal::Refusal,
    shared::Shared,
};
use crate::{
    body::ResponseBody,
    clock::Day,
    error::Reject,
    store::{AdminStore, ReportPage},
};

/// Of so many keys rows are read at once.
const KEYS: usize = 2000;

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
    /// What was used; in today's report the keys without use follow.
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
        if wanted.csv && key_id.is_none() && wanted.group_by.key {
            return Ok(Told::Csv(self.streamed(wanted)));
        }
        let tells_idle =
            wanted.day() == Some(today) && wanted.group_by == KEY_AND_DAY && !wanted.csv;
        let query = wanted.query(key_id.clone());
        let query = if tells_idle && key_id.is_none() { query.with_idle() } else { query };
        let report = self.store.report(query).await?;
        if key_id.is_some() && known.is_none() && report.rows.is_empty() {
            return Err(Refusal::unknown_key());
        }
        let next = report.has_more.then(|| wanted.skip + report.rows.len());
        let mut items: Vec<Item> =
            report.rows.into_iter().map(|row| Item::new(row, wanted.day().is_some())).collect();
        if tells_idle && items.is_empty() && wanted.skip == 0 {
            items.extend(known.map(|key| Item::idle(key, today)));
        }
        if wanted.csv {
            let mut csv = Csv::file(item::COLUMNS);
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

    /// Rows by key, read page by page.
    fn streamed(self: &Arc<Self>, wanted: Wanted) -> Response<AdminBody> {
        let query = wanted.query(None);
        let shared = self.clone();
        let fetch = move |after| {
            let page = ReportPage::ById { after, limit: KEYS };
            shared.store.report(query.clone().page(page))
        };
        let pages = rows::pages(Arc::new(fetch), None, wanted.day().is_some());
        let rows = AdminRows::new(Csv::file(item::COLUMNS).into_text(), pages);
        csv_answer(&wanted, ResponseBody::passed(rows))
    }
}

fn csv_answer(wanted: &Wanted, body: AdminBody) -> Response<AdminBody> {
    let name = match wanted.day() {
        Some(day) => format!("usage-{day}.csv"),
        None => format!("usage-{}-{}.csv", wanted.from, wanted.to),
    };
    attachment(&name, CSV, body)
}
