//! All keys as CSV, by their hashes.

use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::super::{
    call::{Answers, Asked},
    csv::{AdminBody, AdminRows, CSV, Cell, Csv, More, Pages, attachment},
    input::CsvOnly,
    refusal::Refusal,
    shared::Shared,
};
use crate::{
    body::ResponseBody,
    clock::rfc3339,
    error::Reject,
    store::{AdminStore, KeyPageQuery, KeySummary, PageCursor},
};

/// So many keys are read at once.
const KEYS: usize = 1000;

pub(super) const COLUMNS: [&str; 8] =
    ["id", "key", "key_sha256", "label", "daily_limit", "created_at", "expires_at", "disabled"];

/// In which form keys are exported.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ExportWanted {
    /// `csv` is the only one.
    format: Option<CsvOnly>,
}

/// All keys.
pub(in crate::admin) struct Exported(AdminRows);

impl Answers for Exported {
    const HEADERS: &'static [(&'static str, &'static str)] =
        &[("Content-Disposition", "The file name.")];

    fn response(self) -> http::Response<AdminBody> {
        attachment("keys.csv", CSV, ResponseBody::passed(self.0))
    }

    fn content(_: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        vec![(CSV, json_schema!({"type": "string"}))]
    }

    const STATUS: http::StatusCode = http::StatusCode::OK;
}

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    pub(in crate::admin) async fn export_keys(
        self: Arc<Self>,
        asked: Asked<(), ExportWanted>,
    ) -> Result<Exported, Refusal> {
        let (Some(CsvOnly(())) | None) = asked.query.format;
        let begin = Csv::file(COLUMNS).into_text();
        Ok(Exported(AdminRows::new(begin, pages(self, None))))
    }
}

fn pages<S: AdminStore, R: Reject + Send + Sync + 'static>(
    shared: Arc<Shared<S, R>>,
    after: Option<PageCursor>,
) -> Pages {
    Box::pin(async move {
        let query = KeyPageQuery { limit: KEYS, after, ..KeyPageQuery::default() };
        let page = shared.store.list(query).await?;
        let mut csv = Csv::default();
        page.keys.iter().for_each(|key| write(key, &mut csv));
        let more = page.next.map(|next| More::new(move || pages(shared, Some(next))));
        Ok((csv.into_text().into(), more))
    })
}

/// Writes the row of [`COLUMNS`].
fn write(key: &KeySummary, csv: &mut Csv) {
    let record = &key.record;
    let hash = key.hash.map(|hash| hash.to_hex());
    let [created_at, expires_at] = [record.created_at, record.expires_at].map(|at| at.map(rfc3339));
    csv.row([
        Cell::Text(record.id.as_str()),
        Cell::Text(&record.masked),
        Cell::text(hash.as_deref()),
        Cell::Text(&record.label),
        Cell::Plain(&record.daily_limit.get()),
        Cell::text(created_at.as_deref()),
        Cell::text(expires_at.as_deref()),
        Cell::Plain(&record.disabled),
    ]);
}
