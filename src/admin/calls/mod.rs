//! The table of calls, from which requests are routed and `openapi.json` is generated.

mod audit;
mod backup;
pub(crate) mod keys;
mod requests;
mod status;
mod usage;

use std::sync::Arc;

use http::Method;

use crate::{
    admin::{
        http::{
            call::{Call, CallRequest},
            error::AdminError,
            openapi::{self, Document},
        },
        shared::{Api, Shared},
    },
    error::{Reject, catalog},
    store::AdminStore,
};

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    /// The calls with their OpenAPI document, generated on first use.
    pub(crate) fn api(&self) -> &Api<Self> {
        self.api.get_or_init(|| {
            let calls = calls();
            let document = openapi::document(&calls, self);
            Api { calls, document }
        })
    }

    async fn openapi(self: Arc<Self>, _: CallRequest) -> Result<Document, AdminError> {
        Ok(Document(self.api().document.clone()))
    }
}

/// All calls of the API.
fn calls<S, R>() -> Vec<Call<Shared<S, R>>>
where
    S: AdminStore,
    R: Reject + Send + Sync + 'static,
{
    const KEYS: &str = "/keys";
    const KEY: &str = "/keys/{ref}";
    vec![
        Call::new(Method::GET, KEYS, "listKeys", "List keys, in pages", Shared::list_keys),
        Call::new(
            Method::POST,
            KEYS,
            "createKeys",
            "Issue one key or several",
            Shared::create_keys,
        )
        .fails_with(catalog::KEY_EXISTS)
        .fails_with(catalog::REQUEST_IN_PROGRESS)
        .fails_with(AdminError::already_issued(&["key_0123456789abcdef".into()]))
        .fails_with(catalog::IDEMPOTENCY_KEY_REUSED),
        Call::new(
            Method::GET,
            "/keys/export",
            "exportKeys",
            "Export all keys with their hashes",
            Shared::export_keys,
        )
        .works_without_store(),
        Call::new(
            Method::POST,
            "/keys/import",
            "importKeys",
            "Import keys from a CSV file",
            Shared::import_keys,
        ),
        Call::new(Method::GET, KEY, "getKey", "Get a key", Shared::get_key),
        Call::new(Method::PATCH, KEY, "updateKey", "Change a key", Shared::update_key)
            .fails_with(catalog::VERSION_CHANGED),
        Call::new(Method::DELETE, KEY, "deleteKey", "Delete a key", Shared::delete_key)
            .fails_with(catalog::VERSION_CHANGED),
        Call::new(
            Method::POST,
            "/keys/{ref}/rotate",
            "rotateKey",
            "Give a key a new secret",
            Shared::rotate_key,
        )
        .fails_with(catalog::KEY_EXISTS)
        .fails_with(catalog::VERSION_CHANGED),
        Call::new(
            Method::POST,
            "/keys/{ref}/claim",
            "claimKey",
            "Create a link that reveals the key once",
            Shared::claim_key,
        )
        .fails_with(catalog::KEY_NOT_ACTIVE),
        Call::new(Method::GET, "/usage", "getUsage", "Usage report", Shared::usage)
            .fails_with(catalog::KEY_NOT_FOUND),
        Call::new(
            Method::POST,
            "/reset-usage",
            "resetUsage",
            "Reset today's count of one key",
            Shared::reset_usage,
        )
        .fails_with(catalog::KEY_NOT_FOUND)
        .fails_with(catalog::VERSION_CHANGED),
        Call::new(Method::GET, "/audit", "getAudit", "The audit trail", Shared::audit),
        Call::new(Method::GET, "/requests", "getRequests", "Single requests", Shared::requests),
        Call::new(
            Method::GET,
            "/status",
            "getStatus",
            "Status and settings of the process",
            Shared::status,
        )
        .works_without_store(),
        Call::new(
            Method::POST,
            "/backup",
            "backUp",
            "Download a copy of the store",
            Shared::back_up,
        )
        .fails_with(catalog::IN_PROGRESS)
        .fails_with(catalog::NOT_SUPPORTED)
        .fails_with(catalog::BACKUP_FAILED),
        Call::new(Method::GET, "/openapi.json", "getDescription", "This document", Shared::openapi)
            .public(),
    ]
}
