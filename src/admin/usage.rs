use std::collections::HashSet;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::{
    csv::{Cell, Csv},
    query::Params,
    refusal::Refusal,
    service::{Answer, Shared},
    view::answer,
};
use crate::{
    clock::Day,
    key::{DailyLimit, KeyId},
    store::{
        AdminStore, GroupBy, KeyPageQuery, KeyRef, KeySummary, Tokens, UsageFigures, UsageQuery,
        UsageRow,
    },
};

/// Keys without use that today's report lists after the others.
const MOST_IDLE: usize = 1000;
const LONGEST_RANGE: u32 = 366;

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

#[derive(Default, Serialize)]
struct Item {
    #[serde(flatten)]
    key: Option<KeyPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<Day>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    requests: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_today: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    #[serde(flatten)]
    limit: Option<LimitPart>,
    tokens: Tokens,
    succeeded: u64,
    failed: u64,
    refunded: u64,
    rejected: u64,
}

/// Whose row it is. The masked key and label are `null` once the key was deleted.
#[derive(Serialize)]
struct KeyPart {
    id: KeyId,
    key: Option<String>,
    label: Option<String>,
}

#[derive(Serialize)]
struct LimitPart {
    daily_limit: Option<DailyLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<Option<u64>>,
}

/// What a report is asked for.
struct Wanted {
    from: Day,
    to: Day,
    key: Option<KeyRef>,
    group_by: GroupBy,
    csv: bool,
}

impl Wanted {
    fn read(mut params: Params, today: Day) -> Result<Self, Refusal> {
        const DAY: &str = "a day such as 2026-11-22";
        let day: Option<Day> = params.read("day", DAY)?;
        let from = params.read("from", DAY)?;
        let to = params.read("to", DAY)?;
        let key = params.key();
        let group_by = params.text("group_by").map_or(Ok(KEY_AND_DAY), |by| group_by(&by))?;
        let csv = match params.text("format").as_deref() {
            None | Some("json") => false,
            Some("csv") => true,
            Some(_) => return Err(Refusal::invalid("format", "`json` or `csv`")),
        };
        params.finish()?;
        if day.is_some() && (from.is_some() || to.is_some()) {
            return Err(Refusal::invalid("day", "absent where `from` or `to` is given"));
        }
        let to = to.or(day).unwrap_or_else(|| today.max(from.unwrap_or(today)));
        let from = from.or(day).unwrap_or(to);
        if from > to || from < to.minus(LONGEST_RANGE) {
            return Err(Refusal::invalid("from", "at most 366 days before `to`"));
        }
        Ok(Self { from, to, key, group_by, csv })
    }

    fn query(&self, key_id: Option<KeyId>) -> UsageQuery {
        UsageQuery { key_id, group_by: self.group_by, ..UsageQuery::days(self.from, self.to) }
    }

    /// The day of a report of one day.
    fn day(&self) -> Option<Day> {
        (self.from == self.to).then_some(self.from)
    }
}

const KEY_AND_DAY: GroupBy = GroupBy { key: true, day: true, model: false };

fn group_by(text: &str) -> Result<GroupBy, Refusal> {
    let mut group_by = GroupBy { key: false, day: false, model: false };
    for part in text.split(',') {
        match part.trim() {
            "key" => group_by.key = true,
            "day" => group_by.day = true,
            "model" => group_by.model = true,
            _ => return Err(Refusal::invalid("group_by", "some of `key,day,model`")),
        }
    }
    Ok(group_by)
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
        let mut items: Vec<Item> = report.rows.into_iter().map(|row| wanted.item(row)).collect();
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

fn add_idle(items: &mut Vec<Item>, keys: Vec<KeySummary>, today: Day) {
    let listed: HashSet<KeyId> =
        items.iter().filter_map(|item| Some(item.key.as_ref()?.id.clone())).collect();
    let idle = keys.into_iter().filter(|key| !listed.contains(&key.record.id));
    items.extend(idle.map(|key| Item {
        limit: Some(LimitPart {
            daily_limit: Some(key.record.daily_limit),
            remaining: Some(key.record.daily_limit.limited()),
        }),
        key: Some(KeyPart {
            id: key.record.id,
            key: Some(key.record.masked),
            label: Some(key.record.label),
        }),
        day: Some(today),
        used_today: Some(0),
        ..Item::default()
    }));
}

impl Wanted {
    /// `used_today` and `remaining` are of the row's day; a row of several days has `used`.
    fn item(&self, row: UsageRow) -> Item {
        let UsageFigures { requests, succeeded, failed, refunded, rejected, tokens, .. } =
            row.figures;
        let one_day = row.day.is_some() || self.day().is_some();
        let remaining = row.used.filter(|_| one_day).and_then(|used| {
            let limit = row.daily_limit?;
            Some(limit.limited().map(|limit| limit.saturating_sub(used)))
        });
        Item {
            limit: row
                .key_id
                .is_some()
                .then_some(LimitPart { daily_limit: row.daily_limit, remaining }),
            key: row.key_id.map(|id| KeyPart { id, key: row.masked, label: row.label }),
            day: row.day,
            model: row.model,
            requests,
            used_today: row.used.filter(|_| one_day),
            used: row.used.filter(|_| !one_day),
            tokens,
            succeeded,
            failed,
            refunded,
            rejected,
        }
    }
}

const COLUMNS: [&str; 16] = [
    "day",
    "id",
    "key",
    "label",
    "model",
    "requests",
    "used",
    "daily_limit",
    "remaining",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "succeeded",
    "failed",
    "refunded",
    "rejected",
];

fn csv_answer(wanted: &Wanted, items: &[Item]) -> Response<Bytes> {
    let mut csv = Csv::default();
    csv.row(COLUMNS.map(Cell::Text));
    for item in items {
        let key = item.key.as_ref();
        let used = item.used_today.or(item.used);
        let limit = item.limit.as_ref();
        let daily_limit = limit.and_then(|limit| limit.daily_limit).map(DailyLimit::get);
        let remaining = limit.and_then(|limit| limit.remaining).flatten();
        csv.row([
            Cell::plain(&item.day),
            Cell::text(key.map(|key| key.id.as_str())),
            Cell::text(key.and_then(|key| key.key.as_deref())),
            Cell::text(key.and_then(|key| key.label.as_deref())),
            Cell::text(item.model.as_deref()),
            Cell::Plain(&item.requests),
            Cell::plain(&used),
            Cell::plain(&daily_limit),
            Cell::plain(&remaining),
            Cell::Plain(&item.tokens.prompt),
            Cell::Plain(&item.tokens.completion),
            Cell::Plain(&item.tokens.total),
            Cell::Plain(&item.succeeded),
            Cell::Plain(&item.failed),
            Cell::Plain(&item.refunded),
            Cell::Plain(&item.rejected),
        ]);
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
