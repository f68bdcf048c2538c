use bytes::Bytes;
use http::{HeaderValue, Response};
use serde::Serialize;

use crate::error::{Reject, Rejection, json};

/// Writes rejections as OpenAI does:
/// `{"error":{"message":…,"type":…,"param":null,"code":…}}`.
///
/// ```
/// use http::StatusCode;
/// use tower_quota::{error::{Reject, Rejection}, openai::OpenAiErrors};
///
/// let rejection = Rejection::new(StatusCode::NOT_FOUND, "invalid_request_error", "not_found", "No.");
/// let response = OpenAiErrors.reject(rejection);
/// assert_eq!(
///     response.body(),
///     r#"{"error":{"message":"No.","type":"invalid_request_error","param":null,"code":"not_found"}}"#,
/// );
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenAiErrors;

#[derive(Serialize)]
struct ErrorObject<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: &'a str,
}

impl Reject for OpenAiErrors {
    fn reject(&self, rejection: Rejection) -> Response<Bytes> {
        let error = Inner {
            message: &rejection.message,
            kind: rejection.kind,
            param: None,
            code: rejection.code,
        };
        let body = json(&ErrorObject { error });
        rejection.into_response(body, HeaderValue::from_static("application/json"))
    }
}
