//! Status and settings of the process.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    admin::{
        http::{
            call::{Call, CallRequest, Json},
            error::AdminError,
            json::Timestamp,
            schema,
        },
        shared::Shared,
        store::AdminStore,
    },
    clock::Day,
};

/// Status of the process.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Status {
    version: &'static str,
    started_at: Timestamp,
    now: Timestamp,
    /// The current quota day.
    #[schemars(with = "schema::Day")]
    day: Day,
    timezone: String,
    resets_at: Timestamp,
    store: Health,
    settings: Vec<Setting>,
}

/// Health of the store.
#[derive(Serialize, JsonSchema)]
struct Health {
    /// Whether the store can be written.
    ok: bool,
}

/// One setting, as the process has read it.
#[derive(Serialize, JsonSchema)]
struct Setting {
    name: String,
    /// Secrets are masked; `null` if it is not set.
    value: Option<String>,
}

impl<S: AdminStore> Shared<S> {
    pub(super) fn status_calls() -> Vec<Call<Self>> {
        vec![
            Call::new(
                "GET /status",
                "getStatus",
                "Status and settings of the process",
                Self::status,
            )
            .works_without_store(),
        ]
    }

    async fn status(self: Arc<Self>, _: CallRequest) -> Result<Json<Status>, AdminError> {
        let (process, now) = (&self.process, self.store.now());
        let ok = self.store.probe().await.is_ok();
        let settings = process.settings.iter();
        Ok(Json(Status {
            version: env!("CARGO_PKG_VERSION"),
            started_at: Timestamp(process.started_at),
            now: Timestamp(now),
            day: self.store.today(),
            timezone: process.calendar.time_zone().to_owned(),
            resets_at: Timestamp(process.calendar.window(now).end),
            store: Health { ok },
            settings: settings
                .map(|(name, value)| Setting { name: name.clone(), value: value.clone() })
                .collect(),
        }))
    }
}
