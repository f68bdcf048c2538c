//! Creates claim links.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    admin::{
        calls::keys::requests::ClaimRequest,
        http::{
            call::{CallRequest, Created, Json, NoQuery},
            error::AdminError,
            input::ClaimLifetime,
            json::Timestamp,
        },
        shared::Shared,
    },
    error::{Reject, catalog},
    key::{ClaimToken, KeyId},
    store::{AdminStore, ClaimOffer, KeyRef},
};

/// Lifetime of a claim link without `expires_in_seconds`.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A new claim, in the only response that shows its link.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ClaimLink {
    /// The key's id.
    id: KeyId,
    /// The first to open the link gets the key, with a new secret, once. The part after `#` is not sent
    /// to servers, so it appears in no log. A path without a host is a path on this server.
    #[schemars(example = &"https://gateway.example/claim#2cDjH5k9sQwErTyUiOpAsD")]
    url: String,
    /// The time at which the link expires.
    expires_at: Timestamp,
}

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    pub(crate) async fn claim_key(
        self: Arc<Self>,
        request: CallRequest<KeyRef, NoQuery, Json<ClaimRequest>>,
    ) -> Result<Created<Json<ClaimLink>>, AdminError> {
        let key = self.store.get(request.path).await?.ok_or(catalog::KEY_NOT_FOUND)?.record;
        if !key.is_usable(self.store.now()) {
            return Err(catalog::KEY_NOT_ACTIVE.into());
        }
        let lifetime = request
            .body
            .0
            .expires_in_seconds
            .map_or(DEFAULT_LIFETIME, |ClaimLifetime(lifetime)| lifetime);
        let (token, expires_at) = (ClaimToken::generate(), self.store.now() + lifetime);
        let offer = ClaimOffer::new(KeyRef::new(key.id.as_str()), token.clone(), expires_at);
        let token_id = request.by.token_id.clone();
        let key = self.store.offer_claim(offer, request.by).await?;
        let id = key.ok_or(catalog::KEY_NOT_FOUND)?.record.id;
        tracing::info!(token_id, key_id = %id, "claim link created");
        let url = format!("{}#{}", self.claim_url, token.expose());
        Ok(Created(Json(ClaimLink { id, url, expires_at: Timestamp(expires_at) })))
    }
}
