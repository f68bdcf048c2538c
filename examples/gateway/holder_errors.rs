use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use tower_quota::{
    error::{Reject, Rejection},
    openai::OpenAiErrors,
};

/// Error codes about which a holder must contact the operator.
const NEEDS_OPERATOR: [&str; 7] = [
    "missing_api_key",
    "invalid_api_key",
    "key_disabled",
    "key_expired",
    "key_misconfigured",
    "insufficient_quota",
    "upstream_credentials",
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
    fn reject(&self, mut rejection: Rejection) -> Response<Bytes> {
        if rejection.code == "insufficient_quota" {
            rejection.status = self.exhausted_status;
        }
        if let Some(contact) = &self.contact
            && NEEDS_OPERATOR.contains(&rejection.code)
        {
            rejection.message = format!("{} Contact: {contact}", rejection.message).into();
        }
        rejection.render(&OpenAiErrors)
    }
}
