//! One call of the API: where it is found, what it takes and answers, and who handles it. Its types
//! drive both the handling and the description.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, schema_for};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    AdminBody,
    input::{FromHeaders, from_json, from_query},
    query::decode,
    refusal::Refusal,
    service::Shared,
    view::answer,
};
use crate::{
    body::ResponseBody,
    error::Reject,
    store::{Actor, AdminStore, KeyRef, KeyVersion},
};

/// What a handler is given: who asks, and what the call takes of path, query, body and header.
pub(super) struct Asked<P = (), Q = Nothing, B = (), H = ()> {
    pub(super) by: Actor,
    pub(super) path: P,
    pub(super) query: Q,
    pub(super) body: B,
    pub(super) header: H,
    /// The body as it came.
    pub(super) raw: Bytes,
}

/// A request whose parts are not yet read.
pub(super) struct Unread {
    pub(super) by: Actor,
    /// What stands for `{ref}` in the path.
    pub(super) key: Option<String>,
    pub(super) query: Option<String>,
    pub(super) body: Bytes,
    pub(super) headers: HeaderMap,
}

/// A query without parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// JSON, of a request or as the answer 200.
pub(super) struct Json<T>(pub(super) T);

/// JSON, as the answer 201.
pub(super) struct Created<T>(pub(super) T);

/// An answer about one key in one state, which its `ETag` names.
pub(super) struct Tagged<A>(pub(super) KeyVersion, pub(super) A);

/// What a call takes of the path.
pub(super) trait FromPath: Sized {
    fn from_path(key: Option<&str>) -> Result<Self, Refusal>;
}

/// What a call takes of the body.
pub(super) trait FromBody: Sized {
    /// Whether the body is read at all.
    const READ: bool;
    /// What it is.
    const CONTENT_TYPE: &'static str = "application/json";
    /// The largest one, in bytes.
    const MOST: usize = 64 * 1024;

    fn from_body(body: &[u8]) -> Result<Self, Refusal>;

    fn schema(generator: &mut SchemaGenerator) -> Option<Schema>;

    /// Whether the empty body is wrong.
    fn is_needed() -> bool;
}

/// What a call answers when it is not refused.
pub(super) trait Answers {
    const STATUS: StatusCode;
    /// Headers that some of these answers have, and what they say.
    const HEADERS: &'static [(&'static str, &'static str)] = &[];

    fn response(self) -> Response<AdminBody>;

    /// The bodies by content type.
    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)>;
}

/// A call, for [`calls`](super::calls).
pub(super) struct Call<S, R> {
    pub(super) method: Method,
    /// Below the prefix; `{ref}` stands for a key.
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// Whether it needs no token.
    pub(super) is_open: bool,
    pub(super) reads_body: bool,
    /// What its body is, and the most bytes that it may have.
    pub(super) takes: (&'static str, usize),
    /// Whether it is answered while the store cannot be asked.
    pub(super) outlives_store: bool,
    /// Refusals beside those that its parts imply.
    pub(super) refusals: Vec<Refusal>,
    pub(super) describe: fn(&mut SchemaGenerator, &mut SchemaGenerator) -> Described,
    pub(super) run: Box<Run<S, R>>,
}

type Run<S, R> = dyn Fn(Arc<Shared<S, R>>, Unread) -> Running + Send + Sync;
type Running = Pin<Box<dyn Future<Output = Result<Response<AdminBody>, Refusal>> + Send>>;

/// The schemas of what a call takes and answers.
pub(super) struct Described {
    pub(super) query: Schema,
    pub(super) body: Option<Schema>,
    /// Name, meaning and schema of the header that is taken.
    pub(super) header: Option<(&'static str, &'static str, Schema)>,
    /// Whether a body is needed: an empty one is an object without members.
    pub(super) needs_body: bool,
    pub(super) status: StatusCode,
    pub(super) headers: &'static [(&'static str, &'static str)],
    pub(super) content: Vec<(&'static str, Schema)>,
}

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Call<S, R> {
    pub(super) fn new<P, Q, B, H, A, F, Fut>(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        handler: F,
    ) -> Self
    where
        P: FromPath,
        Q: DeserializeOwned + JsonSchema,
        B: FromBody,
        H: FromHeaders,
        A: Answers,
        F: Fn(Arc<Shared<S, R>>, Asked<P, Q, B, H>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, Refusal>> + Send + 'static,
    {
        let run = move |shared: Arc<Shared<S, R>>, unread: Unread| -> Running {
            let asked = match read(unread) {
                Ok(asked) => asked,
                Err(refusal) => return Box::pin(std::future::ready(Err(refusal))),
            };
            let answer = handler(shared, asked);
            Box::pin(async move { answer.await.map(A::response) })
        };
        Self {
            method,
            path,
            id,
            summary,
            is_open: false,
            reads_body: B::READ,
            takes: (B::CONTENT_TYPE, B::MOST),
            outlives_store: false,
            refusals: Vec::new(),
            describe: describe::<Q, B, H, A>,
            run: Box::new(run),
        }
    }
}

impl<S, R> Call<S, R> {
    /// Whether a key stands in its path.
    pub(super) fn takes_key(&self) -> bool {
        self.path.contains("{ref}")
    }

    /// The same, open to everybody that the address filter lets in.
    pub(super) fn open(self) -> Self {
        Self { is_open: true, ..self }
    }

    /// The same, answered also while the store cannot be asked.
    pub(super) fn outlives_store(self) -> Self {
        Self { outlives_store: true, ..self }
    }

    /// The same with one more refusal.
    pub(super) fn refuses(mut self, refusal: Refusal) -> Self {
        self.refusals.push(refusal);
        self
    }
}

impl Described {
    pub(super) fn has_parameters(&self) -> bool {
        self.query.get("properties").is_some()
    }
}

fn read<P: FromPath, Q: DeserializeOwned, B: FromBody, H: FromHeaders>(
    unread: Unread,
) -> Result<Asked<P, Q, B, H>, Refusal> {
    Ok(Asked {
        path: P::from_path(unread.key.as_deref())?,
        query: from_query(unread.query.as_deref())?,
        header: H::from_headers(&unread.headers)?,
        body: B::from_body(&unread.body)?,
        raw: unread.body,
        by: unread.by,
    })
}

fn describe<Q: JsonSchema, B: FromBody, H: FromHeaders, A: Answers>(
    input: &mut SchemaGenerator,
    output: &mut SchemaGenerator,
) -> Described {
    Described {
        query: Q::json_schema(input),
        body: B::schema(input),
        header: H::described(),
        needs_body: B::is_needed(),
        status: A::STATUS,
        headers: A::HEADERS,
        content: A::content(output),
    }
}

impl FromPath for () {
    fn from_path(_: Option<&str>) -> Result<Self, Refusal> {
        Ok(())
    }
}

impl FromPath for KeyRef {
    fn from_path(key: Option<&str>) -> Result<Self, Refusal> {
        let text = key.and_then(|key| decode(key, false)).filter(|text| !text.is_empty());
        text.map(KeyRef::new).ok_or_else(Refusal::unknown_key)
    }
}

impl FromBody for () {
    const READ: bool = false;

    fn from_body(_: &[u8]) -> Result<Self, Refusal> {
        Ok(())
    }

    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }

    fn is_needed() -> bool {
        false
    }
}

impl<T: DeserializeOwned + JsonSchema> FromBody for Json<T> {
    const READ: bool = true;

    fn from_body(body: &[u8]) -> Result<Self, Refusal> {
        from_json(body).map(Self)
    }

    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }

    fn is_needed() -> bool {
        let schema = schema_for!(T);
        schema.get("required").is_some() || schema.get("minProperties").is_some()
    }
}

impl<T: Serialize + JsonSchema> Answers for Json<T> {
    const STATUS: StatusCode = StatusCode::OK;

    fn response(self) -> Response<AdminBody> {
        ResponseBody::answer(answer(Self::STATUS, &self.0))
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        vec![("application/json", generator.subschema_for::<T>())]
    }
}

impl<T: Serialize + JsonSchema> Answers for Created<Json<T>> {
    const STATUS: StatusCode = StatusCode::CREATED;

    fn response(self) -> Response<AdminBody> {
        let Self(Json(value)) = self;
        ResponseBody::answer(answer(Self::STATUS, &value))
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        Json::<T>::content(generator)
    }
}

impl<A: Answers> Answers for Tagged<A> {
    const STATUS: StatusCode = A::STATUS;
    const HEADERS: &'static [(&'static str, &'static str)] = &[(
        "ETag",
        "Names the state of the key's record, for `If-Match`. Its figures are no part of it.",
    )];

    fn response(self) -> Response<AdminBody> {
        let Self(version, answer) = self;
        let mut response = answer.response();
        if let Ok(tag) = HeaderValue::try_from(format!("\"{version}\"")) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        A::content(generator)
    }
}
