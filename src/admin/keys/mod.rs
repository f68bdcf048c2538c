//! Calls about keys.

mod claim;
mod create;
mod export;
mod import;
mod lines;
mod wanted;

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;

use self::wanted::{KeyChanges, KeysWanted, ResetWanted, RotationWanted};
use super::{
    call::{Asked, Json, Nothing, Tagged},
    input::{
        After, Expiry, Flag, Grace, IfMatch, KeyName, Label, Limit, PageLimit, SearchText, Sort,
        State,
    },
    refusal::Refusal,
    shared::Shared,
    view::{Instant, IssuedKey, ListedKey},
};
use crate::{
    clock::Day,
    error::Reject,
    key::{DailyLimit, KeyId, SecretKey, user_from_label},
    store::{
        AdminStore, ChangeOutcome, KeyChange, KeyEdit, KeyPageQuery, KeyPatch, KeyRef, KeySort,
        KeySummary, PageCursor, Rotation,
    },
};

/// One page of keys.
#[derive(Serialize, JsonSchema)]
pub(super) struct ListedKeys {
    keys: Vec<ListedKey>,
    /// How many keys this page has.
    count: usize,
    /// What `after` is to be for the next page; `null` on the last one.
    next: Option<PageCursor>,
}

/// A key with its new secret.
#[derive(Serialize, JsonSchema)]
pub(super) struct RotatedKey {
    #[serde(flatten)]
    key: IssuedKey,
    /// Until when the old key still works; `null` if it has stopped.
    old_key_valid_until: Option<Instant>,
}

/// A key that was deleted. Its usage history stays.
#[derive(Serialize, JsonSchema)]
pub(super) struct Deleted {
    deleted: bool,
    id: KeyId,
    /// The key, masked.
    key: String,
    label: String,
}

/// A key whose count of today was set back.
#[derive(Serialize, JsonSchema)]
pub(super) struct Reset {
    success: bool,
    id: KeyId,
    /// The key, masked.
    key: String,
    label: String,
    used: u64,
    daily_limit: DailyLimit,
    /// Units left today; `null` without a limit.
    remaining: Option<u64>,
}

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    pub(super) async fn list_keys(
        self: Arc<Self>,
        asked: Asked<(), KeysWanted>,
    ) -> Result<Json<ListedKeys>, Refusal> {
        let KeysWanted { limit, after, search, sort, state } = asked.query;
        let sort = sort.map_or(KeySort::default(), |Sort(sort)| sort);
        let after = after.map(|After(after)| after);
        if after.as_ref().is_some_and(|after| !after.fits(sort)) {
            return Err(Refusal::invalid(
                "after",
                "the `next` of the page before, in the same order",
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

    pub(super) async fn get_key(
        self: Arc<Self>,
        asked: Asked<KeyRef>,
    ) -> Result<Tagged<Json<ListedKey>>, Refusal> {
        let found = self.store.get(asked.path).await?.ok_or_else(Refusal::unknown_key)?;
        Ok(self.listed(found))
    }

    pub(super) async fn update_key(
        self: Arc<Self>,
        asked: Asked<KeyRef, Nothing, Json<KeyChanges>, IfMatch>,
    ) -> Result<Tagged<Json<ListedKey>>, Refusal> {
        let Json(KeyChanges { label, daily_limit, expires_at, disabled }) = asked.body;
        let patch = KeyPatch {
            label: label.map(|Label(label)| label),
            daily_limit: daily_limit.map(|Limit(limit)| limit),
            expires_at: expires_at.map(|at| at.map(|Expiry(at)| at)),
            disabled: disabled.map(|Flag(disabled)| disabled),
        };
        if patch == KeyPatch::default() {
            return Err(Refusal::missing("label`, `daily_limit`, `expires_at` or `disabled"));
        }
        let edit = KeyEdit::new(asked.path, KeyChange::Update(patch), asked.by);
        let changed = self.change(edit, asked.header).await?;
        Ok(self.listed(changed))
    }

    pub(super) async fn rotate_key(
        self: Arc<Self>,
        asked: Asked<KeyRef, Nothing, Json<RotationWanted>, IfMatch>,
    ) -> Result<Tagged<Json<RotatedKey>>, Refusal> {
        let grace = asked.body.0.grace_seconds.map_or(Duration::ZERO, |Grace(grace)| grace);
        let old = self.store.get(asked.path.clone()).await?.ok_or_else(Refusal::unknown_key)?;
        let secret = generate(&user_of(&old.record.masked, &old.record.label), self.store.today())?;
        let rotation = Rotation { secret: secret.clone(), grace };
        // By the text that names it: of several at once that name a secret, the first takes it away.
        let edit = KeyEdit::new(asked.path, KeyChange::Rotate(rotation), asked.by);
        let changed = self.change(edit, asked.header).await?;
        let until = (!grace.is_zero()).then(|| Instant(self.store.now() + grace));
        let key = IssuedKey::new(&secret, &changed.record);
        Ok(Tagged(key.version(), Json(RotatedKey { key, old_key_valid_until: until })))
    }

    pub(super) async fn delete_key(
        self: Arc<Self>,
        asked: Asked<KeyRef, Nothing, (), IfMatch>,
    ) -> Result<Json<Deleted>, Refusal> {
        let edit = KeyEdit::new(asked.path, KeyChange::Delete, asked.by);
        let KeySummary { record, .. } = self.change(edit, asked.header).await?;
        let (id, key, label) = (record.id, record.masked, record.label);
        Ok(Json(Deleted { deleted: true, id, key, label }))
    }

    pub(super) async fn reset_usage(
        self: Arc<Self>,
        asked: Asked<(), Nothing, Json<ResetWanted>, IfMatch>,
    ) -> Result<Json<Reset>, Refusal> {
        let Json(ResetWanted { key: KeyName(key) }) = asked.body;
        let edit = KeyEdit::new(key, KeyChange::ResetUsage, asked.by);
        let KeySummary { record, .. } = self.change(edit, asked.header).await?;
        Ok(Json(Reset {
            success: true,
            id: record.id,
            key: record.masked,
            label: record.label,
            used: 0,
            daily_limit: record.daily_limit,
            remaining: record.daily_limit.limited(),
        }))
    }

    fn listed(&self, key: KeySummary) -> Tagged<Json<ListedKey>> {
        let (now, addrs) = (self.store.now(), self.client_addrs.as_ref());
        Tagged(key.version(), Json(ListedKey::new(key, now, addrs)))
    }

    async fn change(
        &self,
        edit: KeyEdit,
        IfMatch(versions): IfMatch,
    ) -> Result<KeySummary, Refusal> {
        let (action, token_id) = (edit.change.action(), edit.by.token_id.clone());
        let changed = match self.store.change(edit.if_match(versions)).await? {
            ChangeOutcome::Done(changed) => *changed,
            ChangeOutcome::VersionMismatch => return Err(Refusal::other_version()),
            ChangeOutcome::UnknownKey => return Err(Refusal::unknown_key()),
        };
        tracing::info!(action, token_id, key_id = %changed.record.id, "a key was changed");
        Ok(changed)
    }
}

fn generate(user: &str, day: Day) -> Result<SecretKey, Refusal> {
    SecretKey::generate(user, day)
        .map_err(|_| Refusal::invalid("user", "1 to 32 ASCII letters and digits"))
}

/// The `{user}` part of a key's name as its masked text shows it, or as its label yields it.
pub(super) fn user_of(masked: &str, label: &str) -> String {
    let mut words = masked.split('-');
    match (words.next(), words.next(), words.next()) {
        (Some("trial"), Some(user), Some(_)) => user_from_label(user),
        _ => user_from_label(label),
    }
}
