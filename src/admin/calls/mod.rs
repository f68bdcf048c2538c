//! The calls, from which requests are routed and `openapi.json` is generated. Each is registered beside
//! its handler.

mod audit;
mod backup;
pub(crate) mod keys;
mod nodes;
mod requests;
mod status;
mod usage;

use std::sync::Arc;

use crate::admin::{
    http::{
        call::{Call, CallRequest},
        error::AdminError,
        openapi::{self, Document},
    },
    shared::{Api, Shared},
    store::AdminStore,
};

impl<S: AdminStore> Shared<S> {
    /// The calls with their OpenAPI document, generated on first use.
    pub(crate) fn api(&self) -> &Api<Self> {
        self.api.get_or_init(|| {
            let calls: Vec<_> = Self::calls().into_iter().flatten().collect();
            let document = openapi::document(&calls, self);
            Api { calls, document }
        })
    }

    fn calls() -> [Vec<Call<Self>>; 8] {
        [
            Self::key_calls(),
            Self::usage_calls(),
            Self::request_calls(),
            Self::audit_calls(),
            Self::status_calls(),
            Self::backup_calls(),
            Self::node_calls(),
            vec![
                Call::new("GET /openapi.json", "getDescription", "This document", Self::openapi)
                    .public(),
            ],
        ]
    }

    async fn openapi(self: Arc<Self>, _: CallRequest) -> Result<Document, AdminError> {
        Ok(Document(self.api().document.clone()))
    }
}
