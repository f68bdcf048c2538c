//! One call of the API: its method and path, its handler, and the types of request and response,
//! which drive both the handling and the OpenAPI document.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, schema_for};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    admin::{
        http::{
            body::AdminBody,
            error::AdminError,
            input::{FromHeaders, from_json, from_query},
            json::json_response,
            query::decode,
        },
        store::{Actor, KeyRef},
    },
    error::catalog,
    key::KeyVersion,
};

/// Keys and ids that no server on the way rewrites. The service accepts others, too.
const KEY_IN_PATH: &str = "^[A-Za-z0-9_~:+@=-][A-Za-z0-9._~:+@=-]*$";
/// Maximum number of a node, which PostgreSQL stores as a signed integer.
const MAX_NODE_NUMBER: u32 = i32::MAX.unsigned_abs();

/// The request of a call, for its handler: the caller, and the parts of the request that the call
/// reads.
pub(crate) struct CallRequest<P = (), Q = NoQuery, B = (), H = ()> {
    pub(crate) by: Actor,
    pub(crate) path: P,
    pub(crate) query: Q,
    pub(crate) body: B,
    pub(crate) header: H,
    /// The unparsed body.
    pub(crate) raw: Bytes,
}

/// A request whose parts are not parsed yet.
pub(crate) struct RawRequest {
    pub(crate) by: Actor,
    /// The segment for the parameter in the path.
    pub(crate) segment: Option<String>,
    pub(crate) query: Option<String>,
    pub(crate) body: Bytes,
    pub(crate) headers: HeaderMap,
}

/// A call, whose handler is a method of `T`.
pub(crate) struct Call<T> {
    pub(crate) method: &'static str,
    /// Path below the prefix, with `{ref}` for a key or the name of another parameter in braces.
    pub(crate) path: &'static str,
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    /// Whether the call needs no token.
    pub(crate) is_public: bool,
    pub(crate) reads_body: bool,
    /// Content type of the request body.
    pub(crate) content_type: &'static str,
    /// Maximum length of the request body, in bytes.
    pub(crate) max_body_len: usize,
    /// Whether the call succeeds while the store is unavailable.
    pub(crate) works_without_store: bool,
    /// Errors beyond those that the parts of the request imply.
    pub(crate) errors: Vec<AdminError>,
    pub(crate) describe: fn(&mut SchemaGenerator, &mut SchemaGenerator) -> CallSchema,
    pub(crate) handle: Box<Handler<T>>,
}

type Handler<T> = dyn Fn(Arc<T>, RawRequest) -> CallFuture + Send + Sync;
type CallFuture = Pin<Box<dyn Future<Output = Result<Response<AdminBody>, AdminError>> + Send>>;

/// The schemas of a call's request and response.
pub(crate) struct CallSchema {
    pub(crate) path: Option<PathParameter>,
    pub(crate) query: Schema,
    pub(crate) body: Option<Schema>,
    /// Name, description and schema of the header that the call reads.
    pub(crate) header: Option<(&'static str, &'static str, Schema)>,
    /// Whether a body is required. An empty body counts as an object without members.
    pub(crate) needs_body: bool,
    pub(crate) status: StatusCode,
    pub(crate) headers: &'static [(&'static str, &'static str)],
    pub(crate) content: Vec<(&'static str, Schema)>,
}

impl<T> Call<T> {
    /// Creates the call of a method and path, such as `GET /keys/{ref}`.
    pub(crate) fn new<P, Q, B, H, A, F, Fut>(
        route: &'static str,
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
        let (method, path) = route.split_once(' ').unwrap_or(("GET", route));
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
            describe: describe::<P, Q, B, H, A>,
            handle: Box::new(handle),
        }
    }

    /// Returns whether the path contains a key.
    pub(crate) fn takes_key(&self) -> bool {
        self.path.contains("{ref}")
    }

    /// Makes the call available without a token, to clients that pass the address filter.
    pub(crate) fn public(self) -> Self {
        Self { is_public: true, ..self }
    }

    /// Declares that the call succeeds while the store is unavailable.
    pub(crate) fn works_without_store(self) -> Self {
        Self { works_without_store: true, ..self }
    }

    /// Adds an error to the description of the call.
    pub(crate) fn fails_with(mut self, error: impl Into<AdminError>) -> Self {
        self.errors.push(error.into());
        self
    }
}

impl CallSchema {
    pub(crate) fn has_parameters(&self) -> bool {
        self.query.get("properties").is_some()
    }
}

fn parse<P: FromPath, Q: DeserializeOwned, B: FromBody, H: FromHeaders>(
    raw: RawRequest,
) -> Result<CallRequest<P, Q, B, H>, AdminError> {
    Ok(CallRequest {
        path: P::from_path(raw.segment.as_deref())?,
        query: from_query(raw.query.as_deref())?,
        header: H::from_headers(&raw.headers)?,
        body: B::from_body(&raw.body)?,
        raw: raw.body,
        by: raw.by,
    })
}

fn describe<P: FromPath, Q: JsonSchema, B: FromBody, H: FromHeaders, A: CallResponse>(
    input: &mut SchemaGenerator,
    output: &mut SchemaGenerator,
) -> CallSchema {
    CallSchema {
        path: P::describe(),
        query: Q::json_schema(input),
        body: B::schema(input),
        header: H::describe(),
        needs_body: B::is_required(),
        status: A::STATUS,
        headers: A::HEADERS,
        content: A::content(output),
    }
}

/// A query without parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoQuery {}

/// JSON, as a request body or as a response with status 200.
pub(crate) struct Json<T>(pub(crate) T);

/// A response with status 201.
pub(crate) struct Created<T>(pub(crate) T);

/// A response about one key, with the key's version as its `ETag`.
pub(crate) struct WithEtag<A>(pub(crate) KeyVersion, pub(crate) A);

/// The parameter in a path.
pub(crate) struct PathParameter {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) schema: Schema,
    pub(crate) example: Value,
    /// Error for a value that names nothing.
    pub(crate) not_found: AdminError,
}

/// Parses the path segment for the parameter in the path.
pub(crate) trait FromPath: Sized {
    fn from_path(segment: Option<&str>) -> Result<Self, AdminError>;

    fn describe() -> Option<PathParameter> {
        None
    }
}

/// Parses the request body.
pub(crate) trait FromBody: Sized {
    /// Whether the body is read at all.
    const READ: bool = true;
    /// Content type in the OpenAPI document.
    const CONTENT_TYPE: &'static str = "application/json";
    /// Maximum length in bytes.
    const MAX_LEN: usize = 64 * 1024;

    fn from_body(body: &[u8]) -> Result<Self, AdminError>;

    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }

    /// Returns whether an empty body is an error.
    fn is_required() -> bool {
        false
    }
}

/// The response of a call that succeeds.
pub(crate) trait CallResponse {
    const STATUS: StatusCode = StatusCode::OK;
    /// Names and descriptions of headers that some of these responses have.
    const HEADERS: &'static [(&'static str, &'static str)] = &[];

    fn into_response(self) -> Response<AdminBody>;

    /// Returns the schema of the body for each content type.
    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)>;
}

impl FromPath for () {
    fn from_path(_: Option<&str>) -> Result<Self, AdminError> {
        Ok(())
    }
}

impl FromPath for KeyRef {
    fn from_path(segment: Option<&str>) -> Result<Self, AdminError> {
        let text = segment.and_then(|key| decode(key, false)).filter(|text| !text.is_empty());
        text.map(KeyRef::new).ok_or(catalog::KEY_NOT_FOUND.into())
    }

    fn describe() -> Option<PathParameter> {
        Some(PathParameter {
            name: "ref",
            description: "A key's id, or the whole key.",
            schema: json_schema!({"type": "string", "pattern": KEY_IN_PATH, "maxLength": 256}),
            example: "key_0123456789abcdef".into(),
            not_found: catalog::KEY_NOT_FOUND.into(),
        })
    }
}

/// Number of a node in a path.
pub(crate) struct NodeNumber(pub(crate) u32);

impl FromPath for NodeNumber {
    fn from_path(segment: Option<&str>) -> Result<Self, AdminError> {
        let digits = segment.and_then(|number| decode(number, false));
        let digits = digits.filter(|digits| is_plain_number(digits));
        let number = digits.and_then(|digits| digits.parse().ok());
        let number = number.filter(|number| (1..=MAX_NODE_NUMBER).contains(number));
        number.map(Self).ok_or(catalog::NODE_NOT_FOUND.into())
    }

    fn describe() -> Option<PathParameter> {
        Some(PathParameter {
            name: "number",
            description: "Number of a node.",
            schema: json_schema!({"type": "integer", "minimum": 1, "maximum": MAX_NODE_NUMBER}),
            example: 1.into(),
            not_found: catalog::NODE_NOT_FOUND.into(),
        })
    }
}

/// Returns whether a number is written with digits only, and without a zero in front.
fn is_plain_number(text: &str) -> bool {
    !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl FromBody for () {
    const READ: bool = false;

    fn from_body(_: &[u8]) -> Result<Self, AdminError> {
        Ok(())
    }
}

impl<T: DeserializeOwned + JsonSchema> FromBody for Json<T> {
    fn from_body(body: &[u8]) -> Result<Self, AdminError> {
        from_json(body).map(Self)
    }

    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }

    fn is_required() -> bool {
        let schema = schema_for!(T);
        schema.get("required").is_some() || schema.get("minProperties").is_some()
    }
}

impl<T: Serialize + JsonSchema> CallResponse for Json<T> {
    fn into_response(self) -> Response<AdminBody> {
        json_response(Self::STATUS, &self.0).map(AdminBody::from)
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        vec![("application/json", generator.subschema_for::<T>())]
    }
}

impl<T: Serialize + JsonSchema> CallResponse for Created<Json<T>> {
    const STATUS: StatusCode = StatusCode::CREATED;

    fn into_response(self) -> Response<AdminBody> {
        let Self(Json(value)) = self;
        json_response(Self::STATUS, &value).map(AdminBody::from)
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        Json::<T>::content(generator)
    }
}

impl<A: CallResponse> CallResponse for WithEtag<A> {
    const STATUS: StatusCode = A::STATUS;
    const HEADERS: &'static [(&'static str, &'static str)] = &[(
        "ETag",
        "Version of the key's record, for `If-Match`. It does not change with the key's usage.",
    )];

    fn into_response(self) -> Response<AdminBody> {
        let Self(version, inner) = self;
        let mut response = inner.into_response();
        if let Ok(tag) = HeaderValue::try_from(format!("\"{version}\"")) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        A::content(generator)
    }
}
