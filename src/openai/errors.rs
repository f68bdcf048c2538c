use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};
use serde::Serialize;

use crate::error::{Reject, RejectedRequest, Rejection, Retry, json};

/// Header with which OpenAI's and Anthropic's clients do not retry 408, 409, 429 and 5xx, if it is
/// `false`.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Renders rejections as the error object that OpenAI's clients read.
///
/// A rejection for a limit has a further member, `policy`: the name of the limit ([`Rejection::policy`]).
/// Those for which a retry is pointless ([`Retry::Never`]) have `x-should-retry: false`.
///
/// ```
/// use http::{Request, StatusCode};
/// use tower_quota::{error::Rejection, openai::OpenAiErrors};
///
/// let rejection = Rejection::permanent(
///     StatusCode::UNAUTHORIZED,
///     "invalid_request_error",
///     "invalid_api_key",
///     "This key is unknown.",
/// );
/// let response = rejection.render(&OpenAiErrors, &Request::new(()));
/// assert_eq!(response.status(), 401);
/// assert_eq!(
///     response.body(),
///     r#"{"error":{"message":"This key is unknown.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
/// );
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenAiErrors;

#[derive(Serialize)]
struct ErrorObject<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
}

impl Reject for OpenAiErrors {
    fn reject(&self, rejection: Rejection, _: RejectedRequest<'_>) -> Response<Bytes> {
        let object = ErrorObject {
            error: ErrorFields {
                message: &rejection.message,
                r#type: rejection.kind,
                param: None,
                code: rejection.code,
                policy: rejection.policy.as_deref(),
            },
        };
        let body = json(&object);
        let retry = rejection.retry;
        let mut response =
            rejection.into_response(body, HeaderValue::from_static("application/json"));
        if retry == Retry::Never {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }
}
