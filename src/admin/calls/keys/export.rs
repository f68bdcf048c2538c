//! Export of all keys as CSV, with their hashes.

use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::admin::{
    http::{
        body::{AdminBody, Chunks, NextChunk, attachment},
        call::{Call, CallRequest, CallResponse},
        csv::{self, CSV, CsvWriter},
        error::AdminError,
        input::CsvOnly,
    },
    shared::Shared,
    store::{AdminStore, KEY_COLUMNS, KeyPageQuery, PageCursor, key_cells},
};

/// Number of keys that are read from the store at once.
const PAGE_LEN: usize = 1000;

/// Format of the export.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExportQuery {
    /// The only format is `csv`.
    format: Option<CsvOnly>,
}

/// The exported keys.
pub(crate) struct Exported(AdminBody);

impl CallResponse for Exported {
    const HEADERS: &'static [(&'static str, &'static str)] =
        &[("Content-Disposition", "The file name.")];

    fn into_response(self) -> http::Response<AdminBody> {
        attachment("keys.csv", CSV, self.0)
    }

    fn content(_: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        vec![(CSV, json_schema!({"type": "string"}))]
    }
}

impl<S: AdminStore> Shared<S> {
    pub(super) fn export_call() -> Call<Self> {
        Call::new(
            "GET /keys/export",
            "exportKeys",
            "Export all keys with their hashes",
            Self::export_keys,
        )
        .works_without_store()
    }

    async fn export_keys(
        self: Arc<Self>,
        request: CallRequest<(), ExportQuery>,
    ) -> Result<Exported, AdminError> {
        let (Some(CsvOnly(())) | None) = request.query.format;
        let header = CsvWriter::with_header(KEY_COLUMNS).into_bytes();
        Ok(Exported(AdminBody::chunked(header, chunks(self, None))))
    }
}

fn chunks<S: AdminStore>(shared: Arc<Shared<S>>, after: Option<PageCursor>) -> Chunks {
    Box::pin(async move {
        let query = KeyPageQuery { after, ..KeyPageQuery::first(PAGE_LEN) };
        let page = shared.store.list(query).await?;
        let mut csv = CsvWriter::new();
        for key in &page.keys {
            csv.row(key_cells(key).map(|cell| csv::text(Some(&cell))));
        }
        let next = page.next.map(|next| NextChunk::new(move || chunks(shared, Some(next))));
        Ok((csv.into_bytes(), next))
    })
}
