//! A copy of the store.

use std::sync::Arc;

use http::{Response, StatusCode};
use schemars::{Schema, SchemaGenerator, json_schema};

use super::{
    call::{Answers, Asked},
    csv::{AdminBody, AdminRows, More, Pages, attachment},
    refusal::Refusal,
    shared::Shared,
};
use crate::{
    body::ResponseBody,
    clock::rfc3339,
    error::{Reject, StoreErrorKind},
    store::{AdminStore, AuditNote, StoreBackup},
};

const SQLITE: &str = "application/vnd.sqlite3";

/// A file with the copy.
pub(super) struct BackupFile {
    name: String,
    backup: StoreBackup,
}

impl Answers for BackupFile {
    const STATUS: StatusCode = StatusCode::OK;
    const HEADERS: &'static [(&'static str, &'static str)] =
        &[("Content-Disposition", "The file name.")];

    fn response(self) -> Response<AdminBody> {
        let rows = AdminRows::of_length(self.backup.len(), pages(self.backup));
        attachment(&self.name, SQLITE, ResponseBody::passed(rows))
    }

    fn content(_: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        vec![(SQLITE, json_schema!({"type": "string", "format": "binary"}))]
    }
}

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    /// Noted first, so that the copy tells of itself.
    pub(super) async fn back_up(self: Arc<Self>, asked: Asked) -> Result<BackupFile, Refusal> {
        self.store.note(AuditNote::new("store.backup"), asked.by).await?;
        let time = rfc3339(self.store.now()).replace(['-', ':'], "");
        let backup = self.store.backup().await.map_err(|error| match error.kind() {
            StoreErrorKind::Busy | StoreErrorKind::NotSupported => Refusal::store(&error),
            _ => {
                tracing::error!(source = ?error, "backup failed");
                Refusal::backup_failed()
            }
        })?;
        Ok(BackupFile { name: format!("quota-{time}.db"), backup })
    }
}

fn pages(mut backup: StoreBackup) -> Pages {
    Box::pin(async move {
        let bytes = backup.next().await?;
        let more = (!bytes.is_empty()).then(|| More::new(move || pages(backup)));
        Ok((bytes, more))
    })
}
