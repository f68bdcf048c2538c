//! Issues one key or several. A repeated request with an `Idempotency-Key` issues no further keys.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use crate::{
    admin::{
        calls::keys::{requests::NewKeys, view::IssuedKey},
        http::{
            body::AdminBody,
            call::{Call, CallRequest, CallResponse, Json, NoQuery},
            error::AdminError,
            input::IdempotencyKeyHeader,
            json::raw_json_response,
            replay::Replay,
        },
        shared::Shared,
        store::{AdminStore, CreateOutcome, IdempotencyKey},
    },
    error::{catalog, json},
    key::{KeyRecord, SecretKey},
};

/// The issued key, or all of them if the request has a `count`.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Issued {
    One(IssuedKey),
    Many(IssuedKeys),
}

/// [`Issued`] as JSON text.
pub(crate) struct IssuedResponse {
    body: Bytes,
    is_replayed: bool,
}

impl Issued {
    fn new(secrets: &[SecretKey], records: &[KeyRecord], is_many: bool) -> Self {
        let keys = secrets.iter().zip(records).map(|(key, record)| IssuedKey::new(key, record));
        let mut keys: Vec<IssuedKey> = keys.collect();
        match keys.pop() {
            Some(key) if !is_many => Self::One(key),
            last => {
                keys.extend(last);
                Self::Many(IssuedKeys { count: keys.len(), keys })
            }
        }
    }
}

impl IssuedResponse {
    fn new(secrets: &[SecretKey], records: &[KeyRecord], is_many: bool) -> Self {
        Self { body: json(&Issued::new(secrets, records, is_many)), is_replayed: false }
    }
}

impl CallResponse for IssuedResponse {
    const STATUS: StatusCode = StatusCode::CREATED;
    const HEADERS: &'static [(&'static str, &'static str)] = &[(
        "Idempotency-Replayed",
        "`true` if the request is a repetition, for which no keys were issued.",
    )];

    fn into_response(self) -> Response<AdminBody> {
        let mut response = raw_json_response(Self::STATUS, self.body);
        if self.is_replayed {
            let value = HeaderValue::from_static("true");
            response.headers_mut().insert("idempotency-replayed", value);
        }
        response.map(AdminBody::from)
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        Json::<Issued>::content(generator)
    }
}

/// Several issued keys.
#[derive(Serialize, JsonSchema)]
pub(crate) struct IssuedKeys {
    count: usize,
    keys: Vec<IssuedKey>,
}

impl<S: AdminStore> Shared<S> {
    pub(super) fn create_call() -> Call<Self> {
        Call::new("POST /keys", "createKeys", "Issue one key or several", Self::create_keys)
            .fails_with(catalog::KEY_EXISTS)
            .fails_with(catalog::REQUEST_IN_PROGRESS)
            .fails_with(AdminError::already_issued(&["key_0123456789abcdef".into()]))
            .fails_with(catalog::IDEMPOTENCY_KEY_REUSED)
    }

    async fn create_keys(
        self: Arc<Self>,
        request: CallRequest<(), NoQuery, Json<NewKeys>, IdempotencyKeyHeader>,
    ) -> Result<IssuedResponse, AdminError> {
        let Json(body) = request.body;
        let (now, today) = (self.store.now(), self.store.today());
        let is_many = body.count.is_some();
        let new_keys = body.into_keys(now, today, self.default_limits)?;
        let secrets: Vec<SecretKey> = new_keys.iter().map(|key| key.secret().clone()).collect();
        let IdempotencyKeyHeader(Some(name)) = request.header else {
            let records = self.store.create(new_keys, request.by).await?;
            return Ok(IssuedResponse::new(&secrets, &records, is_many));
        };
        let key = IdempotencyKey::new(&request.by.token_id, &name, &request.raw);
        let slot = match self.replays.begin(key, self.store.now())? {
            Replay::First(slot) => slot,
            Replay::Repeated(body) => return Ok(IssuedResponse { body, is_replayed: true }),
        };
        // Called by the store, so that the response is kept even if the client has disconnected.
        let issued_secrets = secrets.clone();
        let on_issued = move |records: &[KeyRecord]| {
            slot.fill(IssuedResponse::new(&issued_secrets, records, is_many).body);
        };
        match self.store.create_once(new_keys, key, request.by, Box::new(on_issued)).await? {
            CreateOutcome::Issued(records) => Ok(IssuedResponse::new(&secrets, &records, is_many)),
            CreateOutcome::Replayed(ids) => Err(AdminError::already_issued(&ids)),
            CreateOutcome::OtherRequest => Err(catalog::IDEMPOTENCY_KEY_REUSED.into()),
        }
    }
}
