//! Download of a backup.

use std::sync::Arc;

use http::Response;
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::{
    admin::{
        http::{
            body::{AdminBody, Chunks, NextChunk, attachment},
            call::{Call, CallRequest, CallResponse},
            error::AdminError,
        },
        shared::Shared,
        store::{AdminStore, AuditNote, StoreBackup, action},
    },
    clock::rfc3339,
    error::{StoreErrorKind, catalog},
};

const SQLITE: &str = "application/vnd.sqlite3";

/// A backup with its file name.
pub(crate) struct BackupFile {
    name: String,
    backup: StoreBackup,
}

impl CallResponse for BackupFile {
    const HEADERS: &'static [(&'static str, &'static str)] =
        &[("Content-Disposition", "The file name.")];

    fn into_response(self) -> Response<AdminBody> {
        let body = AdminBody::with_len(self.backup.length(), chunks(self.backup));
        attachment(&self.name, SQLITE, body)
    }

    fn content(_: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        vec![(SQLITE, json_schema!({"type": "string", "format": "binary"}))]
    }
}

impl<S: AdminStore> Shared<S> {
    pub(super) fn backup_calls() -> Vec<Call<Self>> {
        vec![
            Call::new("POST /backup", "backUp", "Download a copy of the store", Self::back_up)
                .fails_with(catalog::IN_PROGRESS)
                .fails_with(catalog::NOT_SUPPORTED)
                .fails_with(catalog::BACKUP_FAILED),
        ]
    }

    /// The audit entry is written first, so that the backup contains it.
    async fn back_up(self: Arc<Self>, request: CallRequest) -> Result<BackupFile, AdminError> {
        self.store.note(AuditNote::new(action::STORE_BACKUP), request.by).await?;
        let time = rfc3339(self.store.now()).replace(['-', ':'], "");
        let backup = self.store.backup().await.map_err(|error| match error.kind() {
            StoreErrorKind::Busy | StoreErrorKind::NotSupported => AdminError::store(&error),
            _ => {
                tracing::error!(source = ?error, "backup failed: responding with an error");
                catalog::BACKUP_FAILED.into()
            }
        })?;
        Ok(BackupFile { name: format!("quota-{time}.db"), backup })
    }
}

fn chunks(mut backup: StoreBackup) -> Chunks {
    Box::pin(async move {
        let bytes = backup.next().await?;
        let next = (!bytes.is_empty()).then(|| NextChunk::new(move || chunks(backup)));
        Ok((bytes, next))
    })
}
