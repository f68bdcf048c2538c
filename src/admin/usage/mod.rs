mod item;
mod wanted;

use std::collections::HashSet;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use self::{
    item::Item,
    wanted::{KEY_AND_DAY, Wanted},
};
use super::{
    csv::{Cell, Csv},
    query::Params,
    refusal::Refusal,
    service::{Answer, Shared},
    view::answer,
};
use crate::{
    clock::Day,
    key::KeyId,
    store::{AdminStore, GroupBy, KeyPageQuery, KeySummary, UsageRow},
};

/// Keys without use that today's report lists after the others.
const MOST_IDLE: usize = 1000;

#[derive(Serialize)]
struct Report {
    day: Option<Day>,
    from: Day,
    to: Day,
    total_requests: u64,
    active_keys: usize,
    total_keys: u64,
    items: Vec<Item>,
}

impl<S: AdminStore, R> Shared<S, R> {
    /// What was used; in today's report the keys without use follow, at most 1000 of them.
    pub(super) async fn usage(&self, params: Params) -> Answer {
        let today = self.store.today();
        let wanted = Wanted::read(params, today)?;
        let (key_id, known) = match wanted.key.clone() {
            None => (None, None),
            Some(key) => {
                let id = key.id();
                let known = self.store.get(key).await?;
                (Some(known.as_ref().map_or(id, |key| key.record.id.clone())), known)
            }
        };
        let report = self.store.report(wanted.query(key_id.clone())).await?;
        if key_id.is_some() && known.is_none() && report.rows.is_empty() {
            return Err(Refusal::unknown_key());
        }
        let active_keys = self.active_keys(&wanted, key_id.clone(), &report.rows).await?;
        let total_requests = report.rows.iter().map(|row| row.figures.requests).sum();
        let mut items: Vec<Item> =
            report.rows.into_iter().map(|row| Item::new(row, wanted.day().is_some())).collect();
        if wanted.day() == Some(today) && wanted.group_by == KEY_AND_DAY {
            let others = match key_id {
                None => self.first_keys().await?,
                Some(_) => known.into_iter().collect(),
            };
            add_idle(&mut items, others, today);
        }
        if wanted.csv {
            return Ok(csv_answer(&wanted, &items));
        }
        let report = Report {
            day: wanted.day(),
            from: wanted.from,
            to: wanted.to,
            total_requests,
            active_keys,
            total_keys: report.total_keys,
            items,
        };
        Ok(answer(StatusCode::OK, &report))
    }

    /// How many keys were used in the report's days.
    async fn active_keys(
        &self,
        wanted: &Wanted,
        key_id: Option<KeyId>,
        rows: &[UsageRow],
    ) -> Result<usize, Refusal> {
        let count = |rows: &[UsageRow]| {
            let active = |row: &&UsageRow| row.figures.requests > 0 || row.used > Some(0);
            let ids: HashSet<_> = rows.iter().filter(active).map(|row| &row.key_id).collect();
            ids.len()
        };
        if wanted.group_by.key {
            return Ok(count(rows));
        }
        let mut query = wanted.query(key_id);
        query.group_by = GroupBy { day: false, ..KEY_AND_DAY };
        Ok(count(&self.store.report(query).await?.rows))
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

fn csv_answer(wanted: &Wanted, items: &[Item]) -> Response<Bytes> {
    let mut csv = Csv::default();
    csv.row(item::COLUMNS.map(Cell::Text));
    for item in items {
        item.write(&mut csv);
    }
    let mut response = Response::new(Bytes::from(csv.into_text()));
    let name = match wanted.day() {
        Some(day) => format!("attachment; filename=\"usage-{day}.csv\""),
        None => format!("attachment; filename=\"usage-{}-{}.csv\"", wanted.from, wanted.to),
    };
    let headers = response.headers_mut();
    let csv = HeaderValue::from_static("text/csv; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, csv);
    if let Ok(name) = HeaderValue::try_from(name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    response
}
