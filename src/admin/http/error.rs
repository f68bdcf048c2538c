use std::time::Duration;

use http::{HeaderValue, header};

use crate::{
    admin::store::ClaimState,
    clock::rfc3339,
    error::{
        Rejection, StoreError,
        catalog::{self, ErrorCode},
    },
    key::KeyId,
};

/// Why a call failed: a rejection, boxed so that results stay small.
///
/// An [`ErrorCode`] of the catalogue converts into it; the functions are for those whose text or headers
/// depend on the call.
#[derive(Clone, Debug)]
pub(crate) struct AdminError(Box<Rejection>);

/// Maximum number of characters of a client's text that a message quotes.
const MAX_QUOTED_CHARS: usize = 64;

impl AdminError {
    pub(crate) fn missing_token() -> Self {
        challenge(catalog::MISSING_ADMIN_TOKEN, "Bearer")
    }

    pub(crate) fn invalid_token() -> Self {
        challenge(catalog::INVALID_ADMIN_TOKEN, "Bearer error=\"invalid_token\"")
    }

    pub(crate) fn invalid_json(message: String) -> Self {
        catalog::INVALID_JSON.with_message(message).into()
    }

    /// A field or parameter whose value is not `expected`.
    pub(crate) fn invalid_field(name: &str, expected: &str) -> Self {
        let name = truncated(name);
        catalog::INVALID_FIELD.with(&[("name", &name), ("expected", &expected)]).into()
    }

    pub(crate) fn missing_field(name: &str) -> Self {
        catalog::MISSING_FIELD.with(&[("name", &name)]).into()
    }

    pub(crate) fn unknown_field(name: &str) -> Self {
        catalog::UNKNOWN_FIELD.with(&[("name", &truncated(name))]).into()
    }

    pub(crate) fn duplicate_field(name: &str) -> Self {
        let message = format!("`{}` is given twice.", truncated(name));
        catalog::INVALID_FIELD.with_message(message).into()
    }

    pub(crate) fn invalid_csv(message: String) -> Self {
        catalog::INVALID_CSV.with_message(message).into()
    }

    pub(crate) fn body_too_large(max_len: usize) -> Self {
        let message = format!("The body is larger than {} KiB.", max_len / 1024);
        catalog::REQUEST_TOO_LARGE.with_message(message).into()
    }

    /// The claim was opened, has expired or was withdrawn.
    pub(crate) fn claim_not_open(state: ClaimState) -> Self {
        match state {
            ClaimState::Opened(at) => {
                catalog::CLAIM_OPENED.with(&[("opened_at", &rfc3339(at))]).into()
            }
            ClaimState::Expired => catalog::CLAIM_EXPIRED.into(),
            _ => catalog::CLAIM_WITHDRAWN.into(),
        }
    }

    /// The request has issued these keys already. Their secrets are not stored, so they cannot be
    /// returned again.
    pub(crate) fn already_issued(ids: &[KeyId]) -> Self {
        let first: Vec<&str> = ids.iter().take(3).map(KeyId::as_str).collect();
        let first = first.join(", ") + if ids.len() > 3 { ", …" } else { "" };
        catalog::ALREADY_ISSUED.with(&[("count", &ids.len()), ("ids", &first)]).into()
    }

    pub(crate) fn too_many_attempts(wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000) as u64;
        let rejection = catalog::TOO_MANY_ATTEMPTS.rejection();
        rejection.header(header::RETRY_AFTER, seconds.into()).into()
    }

    pub(crate) fn method_not_allowed(allow: &str) -> Self {
        let allow = HeaderValue::from_str(allow).unwrap_or_else(|_| HeaderValue::from_static(""));
        Rejection::method_not_allowed(allow).into()
    }

    /// The rejection for a store error.
    pub(crate) fn store(error: &StoreError) -> Self {
        Rejection::from(error).into()
    }

    pub(crate) fn code(&self) -> &'static str {
        self.0.code
    }

    pub(crate) fn into_rejection(self) -> Rejection {
        *self.0
    }
}

impl From<Rejection> for AdminError {
    fn from(rejection: Rejection) -> Self {
        Self(Box::new(rejection))
    }
}

impl From<ErrorCode> for AdminError {
    fn from(code: ErrorCode) -> Self {
        code.rejection().into()
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, source = ?error, "store call failed: responding with an error");
        Self::store(&error)
    }
}

fn challenge(code: ErrorCode, challenge: &'static str) -> AdminError {
    let challenge = HeaderValue::from_static(challenge);
    code.rejection().header(header::WWW_AUTHENTICATE, challenge).into()
}

/// Truncates a name from the client for a message.
fn truncated(name: &str) -> String {
    name.chars().take(MAX_QUOTED_CHARS).collect()
}
