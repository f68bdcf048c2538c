use bytes::Bytes;
use http::{HeaderValue, Response};
use serde::Serialize;

use crate::error::{Reject, Rejection, json};

/// Writes rejections as the error object that OpenAI clients read.
///
/// ```
/// use http::StatusCode;
/// use tower_quota::{error::{Reject, Rejection}, openai::OpenAiErrors};
///
/// let rejection = Rejection::new(
///     StatusCode::UNAUTHORIZED,
///     "invalid_request_error",
///     "invalid_api_key",
///     "This key is unknown.",
/// );
/// let response = OpenAiErrors.reject(rejection);
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
}

impl Reject for OpenAiErrors {
    fn reject(&self, rejection: Rejection) -> Response<Bytes> {
        let object = ErrorObject {
            error: ErrorFields {
                message: &rejection.message,
                r#type: rejection.kind,
                param: None,
                code: rejection.code,
            },
        };
        let body = json(&object);
        rejection.into_response(body, HeaderValue::from_static("application/json"))
    }
}
