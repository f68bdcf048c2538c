//! The table of calls. Requests are routed by it, and `openapi.json` is written from it.

use std::sync::Arc;

use http::Method;

use super::{
    call::{Asked, Call},
    openapi::{self, Document},
    refusal::Refusal,
    shared::{Api, Shared},
};
use crate::{
    error::{Reject, StoreError, StoreErrorKind},
    store::AdminStore,
};

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    /// The calls and their description.
    pub(super) fn api(&self) -> &Api<Self> {
        self.api.get_or_init(|| {
            let calls = calls();
            let document = openapi::document(&calls, self);
            Api { calls, document }
        })
    }

    async fn description(self: Arc<Self>, _: Asked) -> Result<Document, Refusal> {
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
    let exists = || Refusal::store(&StoreError::new(StoreErrorKind::Conflict));
    let changed = Refusal::other_version;
    vec![
        Call::new(Method::GET, KEYS, "listKeys", "Keys, page by page", Shared::list_keys),
        Call::new(Method::POST, KEYS, "createKeys", "Issue a key, or many", Shared::create_keys)
            .refuses(exists())
            .refuses(Refusal::request_in_progress())
            .refuses(Refusal::already_issued(&["key_0123456789abcdef".into()]))
            .refuses(Refusal::other_request()),
        Call::new(
            Method::GET,
            "/keys/export",
            "exportKeys",
            "All keys, by their hashes",
            Shared::export_keys,
        )
        .outlives_store(),
        Call::new(
            Method::POST,
            "/keys/import",
            "importKeys",
            "Take over keys from a CSV file",
            Shared::import_keys,
        ),
        Call::new(Method::GET, KEY, "getKey", "One key", Shared::get_key),
        Call::new(Method::PATCH, KEY, "updateKey", "Change a key", Shared::update_key)
            .refuses(changed()),
        Call::new(Method::DELETE, KEY, "deleteKey", "Stop a key for ever", Shared::delete_key)
            .refuses(changed()),
        Call::new(
            Method::POST,
            "/keys/{ref}/rotate",
            "rotateKey",
            "Give a key a new secret",
            Shared::rotate_key,
        )
        .refuses(exists())
        .refuses(changed()),
        Call::new(
            Method::POST,
            "/keys/{ref}/claim",
            "claimKey",
            "Make a link by which somebody gets the key",
            Shared::claim_key,
        )
        .refuses(Refusal::key_is_off()),
        Call::new(Method::GET, "/usage", "getUsage", "What was used", Shared::usage)
            .refuses(Refusal::unknown_key()),
        Call::new(
            Method::POST,
            "/reset-usage",
            "resetUsage",
            "Set today's count of one key to 0",
            Shared::reset_usage,
        )
        .refuses(Refusal::unknown_key())
        .refuses(changed()),
        Call::new(Method::GET, "/audit", "getAudit", "The audit trail", Shared::audit),
        Call::new(Method::GET, "/requests", "getRequests", "Single requests", Shared::requests),
        Call::new(Method::GET, "/status", "getStatus", "How the process is", Shared::status)
            .outlives_store(),
        Call::new(
            Method::POST,
            "/backup",
            "backUp",
            "Download a copy of the store",
            Shared::back_up,
        )
        .refuses(Refusal::store(&StoreError::new(StoreErrorKind::Busy)))
        .refuses(Refusal::store(&StoreError::new(StoreErrorKind::NotSupported)))
        .refuses(Refusal::backup_failed()),
        Call::new(
            Method::GET,
            "/openapi.json",
            "getDescription",
            "This description",
            Shared::description,
        )
        .open(),
    ]
}
