//! One call of the API: its method and path, its handler, and the types of request and response,
//! which drive both the handling and the OpenAPI document.

mod parts;

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

pub(super) use self::parts::{CallResponse, Created, FromBody, FromPath, Json, NoQuery, WithEtag};
use super::{
    csv::AdminBody,
    error::AdminError,
    input::{FromHeaders, from_query},
};
use crate::store::Actor;

/// The request of a call, for its handler: the caller, and the parts of the request that the call
/// reads.
pub(super) struct CallRequest<P = (), Q = NoQuery, B = (), H = ()> {
    pub(super) by: Actor,
    pub(super) path: P,
    pub(super) query: Q,
    pub(super) body: B,
    pub(super) header: H,
    /// The unparsed body.
    pub(super) raw: Bytes,
}

/// A request whose parts are not parsed yet.
pub(super) struct RawRequest {
    pub(super) by: Actor,
    /// The segment for `{ref}` in the path.
    pub(super) key: Option<String>,
    pub(super) query: Option<String>,
    pub(super) body: Bytes,
    pub(super) headers: HeaderMap,
}

/// A call, whose handler is a method of `T`.
pub(super) struct Call<T> {
    pub(super) method: Method,
    /// Path below the prefix, with `{ref}` for a key.
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// Whether the call needs no token.
    pub(super) is_public: bool,
    pub(super) reads_body: bool,
    /// Content type of the request body.
    pub(super) content_type: &'static str,
    /// Maximum length of the request body, in bytes.
    pub(super) max_body_len: usize,
    /// Whether the call succeeds while the store is unavailable.
    pub(super) works_without_store: bool,
    /// Errors beyond those that the parts of the request imply.
    pub(super) errors: Vec<AdminError>,
    pub(super) describe: fn(&mut SchemaGenerator, &mut SchemaGenerator) -> CallSchema,
    pub(super) handle: Box<Handler<T>>,
}

type Handler<T> = dyn Fn(Arc<T>, RawRequest) -> CallFuture + Send + Sync;
type CallFuture = Pin<Box<dyn Future<Output = Result<Response<AdminBody>, AdminError>> + Send>>;

/// The schemas of a call's request and response.
pub(super) struct CallSchema {
    pub(super) query: Schema,
    pub(super) body: Option<Schema>,
    /// Name, description and schema of the header that the call reads.
    pub(super) header: Option<(&'static str, &'static str, Schema)>,
    /// Whether a body is required. An empty body counts as an object without members.
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
        A: CallResponse,
        F: Fn(Arc<T>, CallRequest<P, Q, B, H>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, AdminError>> + Send + 'static,
    {
        let handle = move |shared: Arc<T>, raw: RawRequest| -> CallFuture {
            let request = match parse(raw) {
                Ok(request) => request,
                Err(error) => return Box::pin(std::future::ready(Err(error))),
            };
            let response = handler(shared, request);
            Box::pin(async move { response.await.map(A::into_response) })
        };
        Self {
            method,
            path,
            id,
            summary,
            is_public: false,
            reads_body: B::READ,
            content_type: B::CONTENT_TYPE,
            max_body_len: B::MAX_LEN,
            works_without_store: false,
            errors: Vec::new(),
            describe: describe::<Q, B, H, A>,
            handle: Box::new(handle),
        }
    }

    /// Returns whether the path contains a key.
    pub(super) fn takes_key(&self) -> bool {
        self.path.contains("{ref}")
    }

    /// Makes the call available without a token, to clients that pass the address filter.
    pub(super) fn public(self) -> Self {
        Self { is_public: true, ..self }
    }

    /// Declares that the call succeeds while the store is unavailable.
    pub(super) fn works_without_store(self) -> Self {
        Self { works_without_store: true, ..self }
    }

    /// Adds an error to the description of the call.
    pub(super) fn fails_with(mut self, error: impl Into<AdminError>) -> Self {
        self.errors.push(error.into());
        self
    }
}

impl CallSchema {
    pub(super) fn has_parameters(&self) -> bool {
        self.query.get("properties").is_some()
    }
}

fn parse<P: FromPath, Q: DeserializeOwned, B: FromBody, H: FromHeaders>(
    raw: RawRequest,
) -> Result<CallRequest<P, Q, B, H>, AdminError> {
    Ok(CallRequest {
        path: P::from_path(raw.key.as_deref())?,
        query: from_query(raw.query.as_deref())?,
        header: H::from_headers(&raw.headers)?,
        body: B::from_body(&raw.body)?,
        raw: raw.body,
        by: raw.by,
    })
}

fn describe<Q: JsonSchema, B: FromBody, H: FromHeaders, A: CallResponse>(
    input: &mut SchemaGenerator,
    output: &mut SchemaGenerator,
) -> CallSchema {
    CallSchema {
        query: Q::json_schema(input),
        body: B::schema(input),
        header: H::describe(),
        needs_body: B::is_required(),
        status: A::STATUS,
        headers: A::HEADERS,
        content: A::content(output),
    }
}
