//! Issues keys, one or many, and once even if it is asked for again.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::{
    super::{
        call::{Answers, Asked, Json, Nothing},
        csv::AdminBody,
        input::{Count, Expiry, IdempotencyKeyHeader, Label, Limit, User},
        refusal::Refusal,
        shared::Shared,
        view::{IssuedKey, json_response},
    },
    generate,
    wanted::NewKeys,
};
use crate::{
    body::ResponseBody,
    error::{Reject, json},
    key::{KeyRecord, SecretKey, user_from_label},
    store::{AdminStore, CreateOutcome, IdempotencyKey, NewKey},
};

/// One issued key, or with `count` all of them.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::admin) enum Issued {
    One(IssuedKey),
    Many(IssuedKeys),
}

/// [`Issued`] as JSON, the first time or again.
pub(in crate::admin) struct IssuedAnswer {
    body: Bytes,
    again: bool,
}

impl Issued {
    fn new(secrets: &[SecretKey], records: &[KeyRecord], many: bool) -> Self {
        let keys = secrets.iter().zip(records).map(|(key, record)| IssuedKey::new(key, record));
        let mut keys: Vec<IssuedKey> = keys.collect();
        match keys.pop() {
            Some(key) if !many => Self::One(key),
            last => {
                keys.extend(last);
                Self::Many(IssuedKeys { count: keys.len(), keys })
            }
        }
    }
}

impl IssuedAnswer {
    fn new(secrets: &[SecretKey], records: &[KeyRecord], is_many: bool) -> Self {
        Self { body: json(&Issued::new(secrets, records, is_many)), again: false }
    }
}

impl Answers for IssuedAnswer {
    const STATUS: StatusCode = StatusCode::CREATED;
    const HEADERS: &'static [(&'static str, &'static str)] = &[(
        "Idempotency-Replayed",
        "`true` if the request has come before: nothing was issued now.",
    )];

    fn response(self) -> Response<AdminBody> {
        let mut response = json_response(Self::STATUS, self.body);
        if self.again {
            let again = HeaderValue::from_static("true");
            response.headers_mut().insert("idempotency-replayed", again);
        }
        response.map(ResponseBody::own)
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        Json::<Issued>::content(generator)
    }
}

/// Issued keys.
#[derive(Serialize, JsonSchema)]
pub(in crate::admin) struct IssuedKeys {
    count: usize,
    keys: Vec<IssuedKey>,
}

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    pub(in crate::admin) async fn create_keys(
        self: Arc<Self>,
        asked: Asked<(), Nothing, Json<NewKeys>, IdempotencyKeyHeader>,
    ) -> Result<IssuedAnswer, Refusal> {
        let Json(wanted) = asked.body;
        let new = self.new_keys(&wanted)?;
        let secrets: Vec<SecretKey> = new.iter().map(|key| key.secret.clone()).collect();
        let is_many = wanted.count.is_some();
        let IdempotencyKeyHeader(Some(name)) = asked.header else {
            let records = self.store.create(new, asked.by).await?;
            return Ok(IssuedAnswer::new(&secrets, &records, is_many));
        };
        let once = IdempotencyKey::new(&asked.by.token_id, &name, &asked.raw);
        let place = match self.answers.begin(once, self.store.now())? {
            Ok(body) => return Ok(IssuedAnswer { body, again: true }),
            Err(place) => place,
        };
        // Whoever asked may have left by then, and will ask again.
        let kept = secrets.clone();
        let on_issued = move |records: &[KeyRecord]| {
            place.keep(IssuedAnswer::new(&kept, records, is_many).body);
        };
        match self.store.create_once(new, once, asked.by, Box::new(on_issued)).await? {
            CreateOutcome::Issued(records) => Ok(IssuedAnswer::new(&secrets, &records, is_many)),
            CreateOutcome::Replayed(ids) => Err(Refusal::already_issued(&ids)),
            CreateOutcome::OtherRequest => Err(Refusal::other_request()),
        }
    }

    fn new_keys(&self, wanted: &NewKeys) -> Result<Vec<NewKey>, Refusal> {
        let expires_at = wanted.expires_at.as_ref().map(|Expiry(at)| *at);
        if expires_at.is_some_and(|expires_at| expires_at <= self.store.now()) {
            return Err(Refusal::invalid("expires_at", "a time to come"));
        }
        let daily_limit =
            wanted.daily_limit.as_ref().map_or(self.default_daily_limit, |Limit(limit)| *limit);
        let count = wanted.count.as_ref().map_or(1, |Count(count)| *count);
        let new_key = |n| {
            let label =
                wanted.label.as_ref().map_or(Some(String::new()), |label| label.label(n, count));
            let label = label.ok_or_else(|| Refusal::invalid("label", Label::NEEDS))?;
            let user = match &wanted.user {
                Some(User(user)) => user.clone(),
                None => user_from_label(&label),
            };
            let secret = generate(&user, self.store.today())?;
            Ok(NewKey { secret, label, daily_limit, expires_at })
        };
        (1..=count).map(new_key).collect()
    }
}
