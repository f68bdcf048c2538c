use std::{borrow::Cow, time::Duration};

use http::{HeaderValue, StatusCode, header};

use crate::{
    clock::rfc3339,
    error::{Rejection, StoreError},
    key::KeyId,
    store::ClaimState,
};

/// Why a call failed: a rejection, boxed so that results stay small.
#[derive(Clone, Debug)]
pub(super) struct AdminError(Box<Rejection>);

const KIND: &str = "invalid_request_error";
/// Maximum number of characters of a client's text that a message quotes.
const MAX_QUOTED_CHARS: usize = 64;

impl AdminError {
    /// An error that the same call gets again.
    fn permanent(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Rejection::permanent(status, kind, code, message)))
    }

    /// An error that the same call may not get after this time.
    fn transient(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
        after: Duration,
    ) -> Self {
        let seconds = after.as_millis().div_ceil(1000) as u64;
        let rejection = Rejection::transient(status, kind, code, message);
        Self(Box::new(rejection.header(header::RETRY_AFTER, seconds.into())))
    }

    fn bad_request(code: &'static str, message: String) -> Self {
        Self::permanent(StatusCode::BAD_REQUEST, KIND, code, message)
    }

    pub(super) fn missing_token() -> Self {
        let message = "An admin token is needed, as `Authorization: Bearer` or `x-admin-token`.";
        Self::permanent(StatusCode::UNAUTHORIZED, KIND, "missing_admin_token", message)
            .challenge("Bearer")
    }

    pub(super) fn invalid_token() -> Self {
        let message = "The admin token is wrong.";
        Self::permanent(StatusCode::UNAUTHORIZED, KIND, "invalid_admin_token", message)
            .challenge("Bearer error=\"invalid_token\"")
    }

    fn challenge(mut self, challenge: &'static str) -> Self {
        let value = HeaderValue::from_static(challenge);
        self.0.headers.insert(header::WWW_AUTHENTICATE, value);
        self
    }

    pub(super) fn invalid_json(message: String) -> Self {
        Self::bad_request("invalid_json", message)
    }

    /// A field or parameter whose value is not `expected`.
    pub(super) fn invalid_field(name: &str, expected: &str) -> Self {
        Self::bad_request("invalid_field", format!("`{}` must be {expected}.", truncated(name)))
    }

    pub(super) fn missing_field(name: &str) -> Self {
        Self::bad_request("missing_field", format!("`{name}` is needed."))
    }

    pub(super) fn unknown_field(name: &str) -> Self {
        Self::bad_request("unknown_field", format!("`{}` is not a known field.", truncated(name)))
    }

    pub(super) fn duplicate_field(name: &str) -> Self {
        Self::bad_request("invalid_field", format!("`{}` is given twice.", truncated(name)))
    }

    pub(super) fn broken_body() -> Self {
        Self::bad_request("request_body_broken", "The request body ended early.".to_owned())
    }

    pub(super) fn invalid_csv(message: String) -> Self {
        Self::bad_request("invalid_csv", message)
    }

    pub(super) fn body_too_large(max_len: usize) -> Self {
        let message = format!("The body is larger than {} KiB.", max_len / 1024);
        Self::permanent(StatusCode::PAYLOAD_TOO_LARGE, KIND, "request_too_large", message)
    }

    pub(super) fn not_found() -> Self {
        Self::permanent(StatusCode::NOT_FOUND, KIND, "not_found", "There is no such path.")
    }

    pub(super) fn key_not_found() -> Self {
        Self::permanent(StatusCode::NOT_FOUND, KIND, "key_not_found", "No such key.")
    }

    pub(super) fn claim_not_found() -> Self {
        Self::permanent(StatusCode::NOT_FOUND, KIND, "claim_not_found", "No such link.")
    }

    /// A disabled or expired key cannot be claimed.
    pub(super) fn key_not_active() -> Self {
        let message = "The key is disabled or expired, so it cannot be claimed.";
        Self::permanent(StatusCode::CONFLICT, KIND, "key_not_active", message)
    }

    /// The claim was opened, has expired or was withdrawn.
    pub(super) fn claim_not_open(state: ClaimState) -> Self {
        let (code, message) = match state {
            ClaimState::Opened(at) => {
                ("claim_opened", format!("This link was opened at {}.", rfc3339(at)))
            }
            ClaimState::Expired => ("claim_expired", "This link has expired.".to_owned()),
            _ => ("claim_withdrawn", "This link was withdrawn.".to_owned()),
        };
        Self::permanent(StatusCode::GONE, KIND, code, message)
    }

    pub(super) fn request_in_progress() -> Self {
        let message =
            "A request with this `Idempotency-Key` is in progress. Send it again in a moment.";
        let (status, code) = (StatusCode::CONFLICT, "request_in_progress");
        Self::transient(status, KIND, code, message, Duration::from_secs(1))
    }

    /// The request has issued these keys already. Their secrets are not stored, so they cannot be
    /// returned again.
    pub(super) fn already_issued(ids: &[KeyId]) -> Self {
        let first: Vec<&str> = ids.iter().take(3).map(KeyId::as_str).collect();
        let (first, more) = (first.join(", "), if ids.len() > 3 { ", …" } else { "" });
        let message = format!(
            "This request has already issued keys ({}: {first}{more}). Their secrets cannot be shown \
             again: rotate a key to get a new one.",
            ids.len()
        );
        Self::permanent(StatusCode::CONFLICT, KIND, "already_issued", message)
    }

    pub(super) fn idempotency_key_reused() -> Self {
        let message = "This `Idempotency-Key` belongs to another request.";
        Self::permanent(StatusCode::UNPROCESSABLE_ENTITY, KIND, "idempotency_key_reused", message)
    }

    pub(super) fn version_changed() -> Self {
        let message = "The key has changed since it was read. Read it again.";
        Self::permanent(StatusCode::PRECONDITION_FAILED, KIND, "version_changed", message)
    }

    pub(super) fn too_many_attempts(wait: Duration) -> Self {
        let message = "Too many attempts without a valid admin token. Wait before the next one.";
        let (status, code) = (StatusCode::TOO_MANY_REQUESTS, "too_many_attempts");
        Self::transient(status, "rate_limit_error", code, message, wait)
    }

    pub(super) fn address_not_allowed() -> Self {
        let message = "The admin API is not open to this address.";
        Self::permanent(StatusCode::FORBIDDEN, "permission_error", "address_not_allowed", message)
    }

    pub(super) fn method_not_allowed(allow: &str) -> Self {
        let allow = HeaderValue::from_str(allow).unwrap_or_else(|_| HeaderValue::from_static(""));
        Self(Box::new(Rejection::method_not_allowed(allow)))
    }

    pub(super) fn backup_failed() -> Self {
        let message = "The backup failed; the log says why.";
        let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, "backup_failed");
        Self::transient(status, "server_error", code, message, Duration::from_secs(5))
    }

    /// The rejection for a store error.
    pub(super) fn store(error: &StoreError) -> Self {
        Self(Box::new(Rejection::from(error)))
    }

    pub(super) fn code(&self) -> &'static str {
        self.0.code
    }

    pub(super) fn into_rejection(self) -> Rejection {
        *self.0
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, source = ?error, "admin call failed: store error");
        Self::store(&error)
    }
}

/// Truncates a name from the client for a message.
fn truncated(name: &str) -> String {
    name.chars().take(MAX_QUOTED_CHARS).collect()
}
