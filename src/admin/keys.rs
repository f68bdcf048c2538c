use http::StatusCode;
use serde::Serialize;

use super::{
    input::Fields,
    query::Params,
    refusal::Refusal,
    service::{Answer, Shared},
    view::{Instant, IssuedKey, ListedKey, answer},
};
use crate::{
    clock::Day,
    key::{KeyId, SecretKey, user_from_label},
    store::{
        Actor, AdminStore, KeyChange, KeyPageQuery, KeyPatch, KeyRef, KeySummary, NewKey, Rotation,
    },
};

#[derive(Serialize)]
struct IssuedKeys<'a> {
    count: usize,
    keys: Vec<IssuedKey<'a>>,
}

#[derive(Serialize)]
struct ListedKeys<'a> {
    keys: Vec<ListedKey<'a>>,
    count: usize,
    next: Option<u64>,
}

#[derive(Serialize)]
struct RotatedKey<'a> {
    #[serde(flatten)]
    key: IssuedKey<'a>,
    old_key_valid_until: Option<Instant>,
}

#[derive(Serialize)]
struct Deleted<'a> {
    deleted: bool,
    id: &'a KeyId,
    key: &'a str,
    label: &'a str,
}

#[derive(Serialize)]
struct Reset<'a> {
    success: bool,
    id: &'a KeyId,
    key: &'a str,
    label: &'a str,
    used: u64,
    daily_limit: u32,
    remaining: Option<u64>,
}

impl<S: AdminStore, R> Shared<S, R> {
    pub(super) async fn create_keys(&self, body: &[u8], by: Actor) -> Answer {
        let mut fields = Fields::parse(body)?;
        let label = fields.label()?.unwrap_or_default();
        let daily_limit = fields.daily_limit()?.unwrap_or(self.default_daily_limit);
        let user = fields.text("user")?;
        let expires_at = fields.expires_at()?.flatten();
        let count = fields.count()?;
        fields.finish()?;
        if expires_at.is_some_and(|expires_at| expires_at <= self.store.now()) {
            return Err(Refusal::invalid("expires_at", "a time to come"));
        }
        let user = user.unwrap_or_else(|| user_from_label(&label));
        let issue = |_| {
            Ok::<_, Refusal>(NewKey {
                secret: generate(&user, self.store.today())?,
                label: label.clone(),
                daily_limit,
                expires_at,
            })
        };
        let new: Vec<NewKey> =
            (0..count.unwrap_or(1)).map(issue).collect::<Result<_, Refusal>>()?;
        let secrets: Vec<SecretKey> = new.iter().map(|key| key.secret.clone()).collect();
        let records = self.store.create(new, by).await?;
        let mut keys =
            secrets.iter().zip(&records).map(|(secret, record)| IssuedKey::new(secret, record));
        if count.is_none()
            && let Some(key) = keys.next()
        {
            return Ok(answer(StatusCode::CREATED, &key));
        }
        let keys: Vec<_> = keys.collect();
        let count = keys.len();
        Ok(answer(StatusCode::CREATED, &IssuedKeys { count, keys }))
    }

    pub(super) async fn list_keys(&self, mut params: Params) -> Answer {
        let limit = params.limit()?;
        let after = params.read("after", "the `next` of the page before")?;
        let search = params.text("search");
        params.finish()?;
        let page = self.store.list(KeyPageQuery { limit, after, search }).await?;
        let keys: Vec<ListedKey<'_>> = page.keys.iter().map(ListedKey::from).collect();
        let (count, next) = (keys.len(), page.next);
        Ok(answer(StatusCode::OK, &ListedKeys { keys, count, next }))
    }

    pub(super) async fn get_key(&self, key: KeyRef) -> Answer {
        let found = self.store.get(key).await?.ok_or_else(Refusal::unknown_key)?;
        Ok(answer(StatusCode::OK, &ListedKey::from(&found)))
    }

    pub(super) async fn update_key(&self, key: KeyRef, body: &[u8], by: Actor) -> Answer {
        let mut fields = Fields::parse(body)?;
        if fields.is_empty() {
            return Err(Refusal::missing("label`, `daily_limit`, `expires_at` or `disabled"));
        }
        fields.refuse_null(&["label", "daily_limit", "disabled"])?;
        let patch = KeyPatch {
            label: fields.label()?,
            daily_limit: fields.daily_limit()?,
            expires_at: fields.expires_at()?,
            disabled: fields.flag("disabled")?,
        };
        fields.finish()?;
        let changed = self.change(key, KeyChange::Update(patch), by).await?;
        Ok(answer(StatusCode::OK, &ListedKey::from(&changed)))
    }

    pub(super) async fn rotate_key(&self, key: KeyRef, body: &[u8], by: Actor) -> Answer {
        let mut fields = Fields::parse(body)?;
        let grace = fields.grace()?;
        fields.finish()?;
        let old = self.store.get(key).await?.ok_or_else(Refusal::unknown_key)?;
        let user = user_of(&old);
        let secret = generate(&user, self.store.today())?;
        let rotation = Rotation { secret: secret.clone(), grace };
        let by_id = KeyRef::new(old.record.id.as_str());
        let changed = self.change(by_id, KeyChange::Rotate(rotation), by).await?;
        let until = (!grace.is_zero()).then(|| Instant(self.store.now() + grace));
        let rotated = RotatedKey {
            key: IssuedKey::new(&secret, &changed.record),
            old_key_valid_until: until,
        };
        Ok(answer(StatusCode::OK, &rotated))
    }

    pub(super) async fn delete_key(&self, key: KeyRef, by: Actor) -> Answer {
        let deleted = self.change(key, KeyChange::Delete, by).await?;
        let deleted = Deleted {
            deleted: true,
            id: &deleted.record.id,
            key: &deleted.record.masked,
            label: &deleted.record.label,
        };
        Ok(answer(StatusCode::OK, &deleted))
    }

    pub(super) async fn reset_usage(&self, body: &[u8], by: Actor) -> Answer {
        let mut fields = Fields::parse(body)?;
        let key = fields.text("key")?.filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| Refusal::missing("key"))?;
        fields.finish()?;
        let key = KeyRef::new(key.trim());
        let reset = self.change(key, KeyChange::ResetUsage, by).await?;
        let limit = reset.record.daily_limit;
        let reset = Reset {
            success: true,
            id: &reset.record.id,
            key: &reset.record.masked,
            label: &reset.record.label,
            used: 0,
            daily_limit: limit.get(),
            remaining: limit.limited(),
        };
        Ok(answer(StatusCode::OK, &reset))
    }

    async fn change(
        &self,
        key: KeyRef,
        change: KeyChange,
        by: Actor,
    ) -> Result<KeySummary, Refusal> {
        let action = change.action();
        let token_id = by.token_id.clone();
        let changed = self.store.change(key, change, by).await?;
        let changed = changed.ok_or_else(Refusal::unknown_key)?;
        tracing::info!(action, token_id, key_id = %changed.record.id, "a key was changed");
        Ok(changed)
    }
}

fn generate(user: &str, day: Day) -> Result<SecretKey, Refusal> {
    SecretKey::generate(user, day)
        .map_err(|_| Refusal::invalid("user", "1 to 32 ASCII letters and digits"))
}

/// The `{user}` part of a key's name as its masked text shows it, or as its label yields it.
fn user_of(key: &KeySummary) -> String {
    let mut words = key.record.masked.split('-');
    match (words.next(), words.next(), words.next()) {
        (Some("trial"), Some(user), Some(_)) => user_from_label(user),
        _ => user_from_label(&key.record.label),
    }
}
