//! Calls on keys.

mod create;
mod export;
mod import;
mod requests;
mod view;

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    requests::KeyChanges,
    view::{IssuedKey, ListedKey},
};
use crate::{
    admin::{
        http::{
            call::{Call, CallRequest, Created, Json, NoQuery, WithEtag},
            error::AdminError,
            input::{
                ClaimLifetime, GracePeriod, IfMatch, KeyCursor, KeyRefField, PageLimit, SearchText,
                Sort, State,
            },
            json::{LimitNumber, Timestamp},
            schema,
        },
        shared::Shared,
        store::{
            AdminStore, ChangeOutcome, ClaimOffer, KeyChange, KeyEdit, KeyPageQuery, KeyRef,
            KeySort, KeySummary, PageCursor, Rotation,
        },
    },
    clock::Day,
    error::catalog,
    key::{ClaimToken, KeyId, SecretKey, user_from_label},
};

/// Lifetime of a claim link without `expires_in_seconds`.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Filters and order of keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListKeysQuery {
    /// Maximum number of keys, 100 if absent.
    limit: Option<PageLimit>,
    /// `next` of the previous page in the same order.
    after: Option<KeyCursor>,
    /// Only keys with this text in label, id or masked key (case-insensitive), the key that is this
    /// text, or keys whose SHA-256 begins with these 8 or more hexadecimal digits.
    search: Option<SearchText>,
    /// Order of keys, `issued` if absent. `nearest_limit` lists first the keys that have used the
    /// largest part of their limit today.
    sort: Option<Sort>,
    /// Only keys in this state.
    state: Option<State>,
}

/// Options of a rotation.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateRequest {
    /// Number of seconds for which the old key keeps working, 0 if absent.
    #[schemars(example = 3600)]
    grace_seconds: Option<GracePeriod>,
}

/// Options of a claim.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimRequest {
    /// Number of seconds for which the link can be opened, seven days if absent.
    #[schemars(example = 86400)]
    expires_in_seconds: Option<ClaimLifetime>,
}

/// The key whose count to reset. There is no way to reset all keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResetRequest {
    /// Id of the key, or the whole key.
    #[schemars(example = &"key_0123456789abcdef")]
    key: KeyRefField,
}

/// One page of keys.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ListedKeys {
    keys: Vec<ListedKey>,
    /// Number of keys on this page.
    count: usize,
    /// Value of `after` for the next page, `null` on the last one.
    #[schemars(with = "Option<schema::PageCursor>")]
    next: Option<PageCursor>,
}

/// A key with its new secret.
#[derive(Serialize, JsonSchema)]
pub(crate) struct RotatedKey {
    #[serde(flatten)]
    key: IssuedKey,
    /// The time until which the old key works, `null` if it no longer works.
    old_key_valid_until: Option<Timestamp>,
}

/// A deleted key. Its usage history is kept.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Deleted {
    deleted: bool,
    #[schemars(with = "schema::KeyId")]
    id: KeyId,
    /// The key, masked.
    key: String,
    label: String,
}

/// A key whose count of today was reset.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Reset {
    success: bool,
    #[schemars(with = "schema::KeyId")]
    id: KeyId,
    /// The key, masked.
    key: String,
    label: String,
    used: u64,
    daily_limit: LimitNumber,
    /// Remaining units today, `null` without a limit.
    remaining: Option<u64>,
}

/// A new claim, in the only response that shows its link.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ClaimLink {
    /// The key's id.
    #[schemars(with = "schema::KeyId")]
    id: KeyId,
    /// The first to open the link gets the key, with a new secret, once. The part after `#` is not sent
    /// to servers, so it appears in no log. A path without a host is a path on this server.
    #[schemars(example = &"https://gateway.example/claim#2cDjH5k9sQwErTyUiOpAsD")]
    url: String,
    /// The time at which the link expires.
    expires_at: Timestamp,
}

impl<S: AdminStore> Shared<S> {
    pub(crate) fn key_calls() -> Vec<Call<Self>> {
        let mut calls = vec![
            Call::new("GET /keys", "listKeys", "List keys, in pages", Self::list_keys),
            Call::new("GET /keys/{ref}", "getKey", "Get a key", Self::get_key),
            Call::new("PATCH /keys/{ref}", "updateKey", "Change a key", Self::update_key)
                .fails_with(catalog::VERSION_CHANGED),
            Call::new("DELETE /keys/{ref}", "deleteKey", "Delete a key", Self::delete_key)
                .fails_with(catalog::VERSION_CHANGED),
            Call::new(
                "POST /keys/{ref}/rotate",
                "rotateKey",
                "Give a key a new secret",
                Self::rotate_key,
            )
            .fails_with(catalog::KEY_EXISTS)
            .fails_with(catalog::VERSION_CHANGED),
            Call::new(
                "POST /keys/{ref}/claim",
                "claimKey",
                "Create a link that reveals the key once",
                Self::claim_key,
            )
            .fails_with(catalog::KEY_NOT_ACTIVE),
            Call::new(
                "POST /reset-usage",
                "resetUsage",
                "Reset today's count of one key",
                Self::reset_usage,
            )
            .fails_with(catalog::KEY_NOT_FOUND)
            .fails_with(catalog::VERSION_CHANGED),
        ];
        calls.extend([Self::create_call(), Self::export_call(), Self::import_call()]);
        calls
    }

    async fn list_keys(
        self: Arc<Self>,
        request: CallRequest<(), ListKeysQuery>,
    ) -> Result<Json<ListedKeys>, AdminError> {
        let ListKeysQuery { limit, after, search, sort, state } = request.query;
        let sort = sort.map_or(KeySort::default(), |Sort(sort)| sort);
        let after = after.map(|KeyCursor(after)| after);
        if after.as_ref().is_some_and(|after| !after.fits(sort)) {
            return Err(AdminError::invalid_field(
                "after",
                "the `next` of the previous page, in the same order",
            ));
        }
        let query = KeyPageQuery {
            limit: PageLimit::or_default(limit),
            after,
            search: search.map(|SearchText(text)| text).filter(|text| !text.is_empty()),
            sort,
            state: state.map(|State(state)| state),
        };
        let page = self.store.list(query).await?;
        let now = self.store.now();
        let addrs = self.client_addrs.as_ref();
        let keys: Vec<ListedKey> =
            page.keys.into_iter().map(|key| ListedKey::new(key, now, addrs)).collect();
        Ok(Json(ListedKeys { count: keys.len(), keys, next: page.next }))
    }

    async fn get_key(
        self: Arc<Self>,
        request: CallRequest<KeyRef>,
    ) -> Result<WithEtag<Json<ListedKey>>, AdminError> {
        let summary = self.store.get(request.path).await?.ok_or(catalog::KEY_NOT_FOUND)?;
        Ok(self.listed(summary))
    }

    async fn update_key(
        self: Arc<Self>,
        request: CallRequest<KeyRef, NoQuery, Json<KeyChanges>, IfMatch>,
    ) -> Result<WithEtag<Json<ListedKey>>, AdminError> {
        let patch = request.body.0.into_patch()?;
        let edit = KeyEdit::new(request.path, KeyChange::Update(patch), request.by);
        let changed = self.change(edit, request.header).await?;
        Ok(self.listed(changed))
    }

    async fn rotate_key(
        self: Arc<Self>,
        request: CallRequest<KeyRef, NoQuery, Json<RotateRequest>, IfMatch>,
    ) -> Result<WithEtag<Json<RotatedKey>>, AdminError> {
        let grace = request.body.0.grace_seconds.map_or(Duration::ZERO, |GracePeriod(grace)| grace);
        let old = self.store.get(request.path.clone()).await?.ok_or(catalog::KEY_NOT_FOUND)?;
        let secret = generate(&user_of(&old.record.masked, &old.record.label), self.store.today())?;
        let rotation = Rotation { secret: secret.clone(), grace };
        // The edit names the key as the request did: of several concurrent rotations by the same
        // secret, only the first finds it.
        let edit = KeyEdit::new(request.path, KeyChange::Rotate(rotation), request.by);
        let changed = self.change(edit, request.header).await?;
        let until = (!grace.is_zero()).then(|| Timestamp(self.store.now() + grace));
        let key = IssuedKey::new(&secret, &changed.record);
        Ok(WithEtag(key.version(), Json(RotatedKey { key, old_key_valid_until: until })))
    }

    async fn delete_key(
        self: Arc<Self>,
        request: CallRequest<KeyRef, NoQuery, (), IfMatch>,
    ) -> Result<Json<Deleted>, AdminError> {
        let edit = KeyEdit::new(request.path, KeyChange::Delete, request.by);
        let KeySummary { record, .. } = self.change(edit, request.header).await?;
        let (id, key, label) = (record.id, record.masked, record.label);
        Ok(Json(Deleted { deleted: true, id, key, label }))
    }

    async fn reset_usage(
        self: Arc<Self>,
        request: CallRequest<(), NoQuery, Json<ResetRequest>, IfMatch>,
    ) -> Result<Json<Reset>, AdminError> {
        let Json(ResetRequest { key: KeyRefField(key) }) = request.body;
        let edit = KeyEdit::new(key, KeyChange::ResetUsage, request.by);
        let KeySummary { record, .. } = self.change(edit, request.header).await?;
        Ok(Json(Reset {
            success: true,
            id: record.id,
            key: record.masked,
            label: record.label,
            used: 0,
            daily_limit: LimitNumber(record.daily_limit),
            remaining: record.daily_limit.units(),
        }))
    }

    async fn claim_key(
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

    fn listed(&self, key: KeySummary) -> WithEtag<Json<ListedKey>> {
        let (now, addrs) = (self.store.now(), self.client_addrs.as_ref());
        WithEtag(key.version(), Json(ListedKey::new(key, now, addrs)))
    }

    async fn change(
        &self,
        edit: KeyEdit,
        IfMatch(versions): IfMatch,
    ) -> Result<KeySummary, AdminError> {
        let (action, token_id) = (edit.change.action(), edit.by.token_id.clone());
        let changed = match self.store.change(edit.if_match(versions)).await? {
            ChangeOutcome::Done(changed) => *changed,
            ChangeOutcome::VersionMismatch => return Err(catalog::VERSION_CHANGED.into()),
            ChangeOutcome::UnknownKey => return Err(catalog::KEY_NOT_FOUND.into()),
        };
        tracing::info!(action, token_id, key_id = %changed.record.id, "key changed");
        Ok(changed)
    }
}

fn generate(user: &str, day: Day) -> Result<SecretKey, AdminError> {
    SecretKey::generate(user, day)
        .map_err(|_| AdminError::invalid_field("user", "1 to 32 ASCII letters and digits"))
}

/// Returns the `{user}` part of a key, taken from the masked key or else from the label.
pub(crate) fn user_of(masked: &str, label: &str) -> String {
    let mut words = masked.split('-');
    match (words.next(), words.next(), words.next()) {
        (Some("trial"), Some(user), Some(_)) => user_from_label(user),
        _ => user_from_label(label),
    }
}
