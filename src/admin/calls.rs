//! The table of calls, from which requests are routed and `openapi.json` is generated.

use std::sync::Arc;

use http::Method;

use super::{
    call::{Call, CallRequest},
    error::AdminError,
    openapi::{self, Document},
    shared::{Api, Shared},
};
use crate::{
    error::{Reject, catalog},
    store::AdminStore,
};

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    /// The calls with their OpenAPI document, generated on first use.
    pub(super) fn api(&self) -> &Api<Self> {
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
        Call::new(Method::GET, KEYS, "listKeys", "Keys, page by page", Shared::list_keys),
        Call::new(Method::POST, KEYS, "createKeys", "Issue a key, or many", Shared::create_keys)
            .fails_with(catalog::KEY_EXISTS)
            .fails_with(catalog::REQUEST_IN_PROGRESS)
            .fails_with(AdminError::already_issued(&["key_0123456789abcdef".into()]))
            .fails_with(catalog::IDEMPOTENCY_KEY_REUSED),
        Call::new(
            Method::GET,
            "/keys/export",
            "exportKeys",
            "All keys, by their hashes",
            Shared::export_keys,
        )
        .works_without_store(),
        Call::new(
            Method::POST,
            "/keys/import",
            "importKeys",
            "Take over keys from a CSV file",
            Shared::import_keys,
        ),
        Call::new(Method::GET, KEY, "getKey", "One key", Shared::get_key),
        Call::new(Method::PATCH, KEY, "updateKey", "Change a key", Shared::update_key)
            .fails_with(catalog::VERSION_CHANGED),
        Call::new(Method::DELETE, KEY, "deleteKey", "Stop a key for ever", Shared::delete_key)
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
            "Make a link by which somebody gets the key",
            Shared::claim_key,
        )
        .fails_with(catalog::KEY_NOT_ACTIVE),
        Call::new(Method::GET, "/usage", "getUsage", "What was used", Shared::usage)
            .fails_with(catalog::KEY_NOT_FOUND),
        Call::new(
            Method::POST,
            "/reset-usage",
            "resetUsage",
            "Set today's count of one key to 0",
            Shared::reset_usage,
        )
        .fails_with(catalog::KEY_NOT_FOUND)
        .fails_with(catalog::VERSION_CHANGED),
        Call::new(Method::GET, "/audit", "getAudit", "The audit trail", Shared::audit),
        Call::new(Method::GET, "/requests", "getRequests", "Single requests", Shared::requests),
        Call::new(Method::GET, "/status", "getStatus", "How the process is", Shared::status)
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
        Call::new(
            Method::GET,
            "/openapi.json",
            "getDescription",
            "This description",
            Shared::openapi,
        )
        .public(),
    ]
}
