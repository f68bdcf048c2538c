use std::time::Duration;

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
    pub(super) fn new(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<std::borrow::Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Rejection::new(status, kind, code, message)))
    }

    fn bad_request(code: &'static str, message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, KIND, code, message)
    }

    pub(super) fn no_token() -> Self {
        let message = "An admin token is needed, as `Authorization: Bearer` or `x-admin-token`.";
        Self::new(StatusCode::UNAUTHORIZED, KIND, "missing_admin_token", message)
            .challenge("Bearer")
    }

    pub(super) fn wrong_token() -> Self {
        let message = "The admin token is wrong.";
        Self::new(StatusCode::UNAUTHORIZED, KIND, "invalid_admin_token", message)
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
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, KIND, "request_too_large", message)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, KIND, "not_found", "There is nothing here.")
    }

    pub(super) fn unknown_key() -> Self {
        Self::new(StatusCode::NOT_FOUND, KIND, "key_not_found", "No such key.")
    }

    pub(super) fn unknown_claim() -> Self {
        Self::new(StatusCode::NOT_FOUND, KIND, "claim_not_found", "No such link.")
    }

    /// A key that does not work cannot be claimed.
    pub(super) fn key_is_off() -> Self {
        let message = "The key is disabled or expired, so nobody could claim it.";
        Self::new(StatusCode::CONFLICT, KIND, "key_not_active", message)
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
        Self::new(StatusCode::GONE, KIND, code, message)
    }

    pub(super) fn request_in_progress() -> Self {
        let message = "A request with this `Idempotency-Key` is at work. Ask again in a moment.";
        let mut refusal = Self::new(StatusCode::CONFLICT, KIND, "request_in_progress", message);
        refusal.0.headers.insert(header::RETRY_AFTER, 1.into());
        refusal
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
        Self::new(StatusCode::CONFLICT, KIND, "already_issued", message)
    }

    pub(super) fn other_request() -> Self {
        let message = "Another request had this `Idempotency-Key`.";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, KIND, "idempotency_key_reused", message)
    }

    pub(super) fn other_version() -> Self {
        let message = "The key was changed meanwhile. Read it again.";
        Self::new(StatusCode::PRECONDITION_FAILED, KIND, "version_changed", message)
    }

    pub(super) fn too_many_attempts(wait: Duration) -> Self {
        let message = "Too many attempts without a right admin token; please wait.";
        let mut refusal = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            "too_many_attempts",
            message,
        );
        refusal
            .0
            .headers
            .insert(header::RETRY_AFTER, (wait.as_millis().div_ceil(1000) as u64).into());
        refusal
    }

    pub(super) fn address_not_allowed() -> Self {
        let message = "The admin API is not open to this address.";
        Self::new(StatusCode::FORBIDDEN, "permission_error", "address_not_allowed", message)
    }

    pub(super) fn wrong_method(allow: &str) -> Self {
        let mut refusal = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            KIND,
            "method_not_allowed",
            format!("Only {allow} is allowed here."),
        );
        if let Ok(value) = HeaderValue::try_from(allow) {
            refusal.0.headers.insert(header::ALLOW, value);
        }
        refusal
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
