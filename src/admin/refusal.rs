use std::{borrow::Cow, time::Duration};

use http::{HeaderValue, StatusCode, header};

use crate::{
    clock::rfc3339,
    error::{Rejection, StoreError},
    key::KeyId,
    store::ClaimState,
};

/// A rejection, boxed so that results stay small.
#[derive(Clone, Debug)]
pub(super) struct Refusal(Box<Rejection>);

const KIND: &str = "invalid_request_error";
const LONGEST_NAME: usize = 64;

impl Refusal {
    /// The same call cannot get over it.
    fn permanent(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Rejection::permanent(status, kind, code, message)))
    }

    /// The same call may succeed after this time.
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

    pub(super) fn no_token() -> Self {
        let message = "An admin token is needed, as `Authorization: Bearer` or `x-admin-token`.";
        Self::permanent(StatusCode::UNAUTHORIZED, KIND, "missing_admin_token", message)
            .challenge("Bearer")
    }

    pub(super) fn wrong_token() -> Self {
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

    /// A field or parameter does not hold what it must: `needs`.
    pub(super) fn invalid(name: &str, needs: &str) -> Self {
        Self::bad_request("invalid_field", format!("`{}` must be {needs}.", short(name)))
    }

    pub(super) fn missing(name: &str) -> Self {
        Self::bad_request("missing_field", format!("`{name}` is needed."))
    }

    pub(super) fn unknown(name: &str) -> Self {
        Self::bad_request("unknown_field", format!("`{}` is not known here.", short(name)))
    }

    pub(super) fn twice(name: &str) -> Self {
        Self::bad_request("invalid_field", format!("`{}` is given twice.", short(name)))
    }

    pub(super) fn unreadable_body() -> Self {
        Self::bad_request("request_body_broken", "The body broke off.".to_owned())
    }

    pub(super) fn invalid_csv(message: String) -> Self {
        Self::bad_request("invalid_csv", message)
    }

    pub(super) fn body_too_large(most: usize) -> Self {
        let message = format!("The body is larger than {} KiB.", most / 1024);
        Self::permanent(StatusCode::PAYLOAD_TOO_LARGE, KIND, "request_too_large", message)
    }

    pub(super) fn not_found() -> Self {
        Self::permanent(StatusCode::NOT_FOUND, KIND, "not_found", "There is nothing here.")
    }

    pub(super) fn unknown_key() -> Self {
        Self::permanent(StatusCode::NOT_FOUND, KIND, "key_not_found", "No such key.")
    }

    pub(super) fn unknown_claim() -> Self {
        Self::permanent(StatusCode::NOT_FOUND, KIND, "claim_not_found", "No such link.")
    }

    /// A key that does not work cannot be claimed.
    pub(super) fn key_is_off() -> Self {
        let message = "The key is disabled or expired, so nobody could claim it.";
        Self::permanent(StatusCode::CONFLICT, KIND, "key_not_active", message)
    }

    /// Why a claim that is not open gives nothing.
    pub(super) fn claim_is_over(state: ClaimState) -> Self {
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
        let message = "A request with this `Idempotency-Key` is at work. Ask again in a moment.";
        let (status, code) = (StatusCode::CONFLICT, "request_in_progress");
        Self::transient(status, KIND, code, message, Duration::from_secs(1))
    }

    /// The keys of this request were issued, and their texts are kept nowhere.
    pub(super) fn already_issued(ids: &[KeyId]) -> Self {
        let some: Vec<&str> = ids.iter().take(3).map(KeyId::as_str).collect();
        let (some, more) = (some.join(", "), if ids.len() > 3 { ", …" } else { "" });
        let message = format!(
            "This request has issued keys before ({}: {some}{more}). Their texts cannot be shown \
             again: rotate a key for a new one.",
            ids.len()
        );
        Self::permanent(StatusCode::CONFLICT, KIND, "already_issued", message)
    }

    pub(super) fn other_request() -> Self {
        let message = "Another request had this `Idempotency-Key`.";
        Self::permanent(StatusCode::UNPROCESSABLE_ENTITY, KIND, "idempotency_key_reused", message)
    }

    pub(super) fn other_version() -> Self {
        let message = "The key was changed meanwhile. Read it again.";
        Self::permanent(StatusCode::PRECONDITION_FAILED, KIND, "version_changed", message)
    }

    pub(super) fn too_many_attempts(wait: Duration) -> Self {
        let message = "Too many attempts without a right admin token; please wait.";
        let (status, code) = (StatusCode::TOO_MANY_REQUESTS, "too_many_attempts");
        Self::transient(status, "rate_limit_error", code, message, wait)
    }

    pub(super) fn address_not_allowed() -> Self {
        let message = "The admin API is not open to this address.";
        Self::permanent(StatusCode::FORBIDDEN, "permission_error", "address_not_allowed", message)
    }

    pub(super) fn wrong_method(allow: &str) -> Self {
        let allow = HeaderValue::from_str(allow).unwrap_or_else(|_| HeaderValue::from_static(""));
        Self(Box::new(Rejection::method_not_allowed(allow)))
    }

    pub(super) fn backup_failed() -> Self {
        let message = "No copy of the store could be made; the log says why.";
        let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, "backup_failed");
        Self::transient(status, "server_error", code, message, Duration::from_secs(5))
    }

    /// What a failing store is answered with.
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

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, source = ?error, "an admin call failed in the store");
        Self::store(&error)
    }
}

/// A name as the client wrote it, cut to a length fit for a message.
fn short(name: &str) -> String {
    name.chars().take(LONGEST_NAME).collect()
}
