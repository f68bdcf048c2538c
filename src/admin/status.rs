//! How the process is, and what it was told at its start.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    call::{Asked, Json},
    refusal::Refusal,
    shared::Shared,
    view::Instant,
};
use crate::{clock::Day, error::Reject, store::AdminStore};

/// How the process is.
#[derive(Serialize, JsonSchema)]
pub(super) struct Status {
    version: &'static str,
    started_at: Instant,
    now: Instant,
    /// The day that is counted now.
    day: Day,
    timezone: String,
    resets_at: Instant,
    store: Health,
    settings: Vec<SettingShown>,
}

/// Whether the store can be written.
#[derive(Serialize, JsonSchema)]
struct Health {
    ok: bool,
}

/// One setting, as the process has read it.
#[derive(Serialize, JsonSchema)]
struct SettingShown {
    name: String,
    /// Secrets are masked; `null` if it is not set.
    value: Option<String>,
}

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    pub(super) async fn status(self: Arc<Self>, _: Asked) -> Result<Json<Status>, Refusal> {
        let (facts, now) = (&self.facts, self.store.now());
        let ok = self.store.probe().await.is_ok();
        let settings = facts.settings.iter();
        Ok(Json(Status {
            version: env!("CARGO_PKG_VERSION"),
            started_at: Instant(facts.started_at),
            now: Instant(now),
            day: self.store.today(),
            timezone: facts.calendar.time_zone().to_owned(),
            resets_at: Instant(facts.calendar.window(now).end),
            store: Health { ok },
            settings: settings
                .map(|(name, value)| SettingShown { name: name.clone(), value: value.clone() })
                .collect(),
        }))
    }
}
