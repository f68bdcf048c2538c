//! One call of the API: where it is found, what it takes and answers, and who handles it. Its types
//! drive both the handling and the description.

mod parts;

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

pub(super) use self::parts::{Answers, Created, FromBody, FromPath, Json, Nothing, Tagged};
use super::{
    csv::AdminBody,
    input::{FromHeaders, from_query},
    refusal::Refusal,
};
use crate::store::Actor;

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

/// A call, whose handler gets a `T`.
pub(super) struct Call<T> {
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
    pub(super) run: Box<Run<T>>,
}

type Run<T> = dyn Fn(Arc<T>, Unread) -> Running + Send + Sync;
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

impl<T> Call<T> {
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
        F: Fn(Arc<T>, Asked<P, Q, B, H>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, Refusal>> + Send + 'static,
    {
        let run = move |shared: Arc<T>, unread: Unread| -> Running {
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
