use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use tower_quota::{
    error::{
        Reject, RejectedRequest, Rejection,
        catalog::{self, ErrorCode},
    },
    openai::OpenAiErrors,
};

/// Error codes about which a holder must contact the operator.
const NEEDS_OPERATOR: [ErrorCode; 7] = [
    catalog::MISSING_API_KEY,
    catalog::INVALID_API_KEY,
    catalog::KEY_DISABLED,
    catalog::KEY_EXPIRED,
    catalog::KEY_MISCONFIGURED,
    catalog::INSUFFICIENT_QUOTA,
    catalog::UPSTREAM_CREDENTIALS,
];

/// Renders rejections as [`OpenAiErrors`] does, with the operator's contact where it helps.
#[derive(Clone, Debug)]
pub(crate) struct HolderErrors {
    contact: Option<Arc<str>>,
    exhausted_status: StatusCode,
}

impl HolderErrors {
    /// Creates a renderer. `exhausted_status` is the status of requests beyond the day's quota.
    pub(crate) fn new(contact: Option<&str>, exhausted_status: StatusCode) -> Self {
        Self { contact: contact.map(Into::into), exhausted_status }
    }
}

impl Reject for HolderErrors {
    fn reject(&self, mut rejection: Rejection, request: RejectedRequest<'_>) -> Response<Bytes> {
        if rejection.code == catalog::INSUFFICIENT_QUOTA.code() {
            rejection.status = self.exhausted_status;
        }
        if let Some(contact) = &self.contact
            && NEEDS_OPERATOR.iter().any(|code| code.code() == rejection.code)
        {
            rejection.message = format!("{} Contact: {contact}", rejection.message).into();
        }
        rejection.render(&OpenAiErrors, request)
    }
}
