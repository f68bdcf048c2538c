//! Makes links by which somebody gets a key.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    super::{
        call::{Asked, Created, Json, Nothing},
        input::ClaimTime,
        refusal::Refusal,
        shared::Shared,
        view::Instant,
    },
    wanted::ClaimWanted,
};
use crate::{
    error::Reject,
    key::{ClaimToken, KeyId},
    store::{AdminStore, ClaimOffer, KeyRef},
};

const A_WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A claim that was made: the one answer that shows its link.
#[derive(Serialize, JsonSchema)]
pub(in crate::admin) struct ClaimLink {
    /// Whose key it gives.
    id: KeyId,
    /// Whoever opens it first gets the key, with a new secret, once. What follows `#` reaches no
    /// server's log. Below this server if it has no host.
    #[schemars(example = &"https://gateway.example/claim#2cDjH5k9sQwErTyUiOpAsD")]
    url: String,
    /// Until when it can be opened.
    expires_at: Instant,
}

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    pub(in crate::admin) async fn claim_key(
        self: Arc<Self>,
        asked: Asked<KeyRef, Nothing, Json<ClaimWanted>>,
    ) -> Result<Created<Json<ClaimLink>>, Refusal> {
        let key = self.store.get(asked.path).await?.ok_or_else(Refusal::unknown_key)?.record;
        if !key.is_usable(self.store.now()) {
            return Err(Refusal::key_is_off());
        }
        let time = asked.body.0.expires_in_seconds.map_or(A_WEEK, |ClaimTime(time)| time);
        let (token, expires_at) = (ClaimToken::generate(), self.store.now() + time);
        let offer = ClaimOffer::new(KeyRef::new(key.id.as_str()), token.clone(), expires_at);
        let token_id = asked.by.token_id.clone();
        let offered = self.store.offer_claim(offer, asked.by).await?;
        let id = offered.ok_or_else(Refusal::unknown_key)?.record.id;
        tracing::info!(token_id, key_id = %id, "a claim was made");
        let url = format!("{}#{}", self.claim_url, token.expose());
        Ok(Created(Json(ClaimLink { id, url, expires_at: Instant(expires_at) })))
    }
}
