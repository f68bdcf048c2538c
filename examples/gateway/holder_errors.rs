use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use tower_quota::{
    error::{Reject, Rejection},
    openai::OpenAiErrors,
};

/// What a holder cannot get over alone.
const NEEDS_OPERATOR: [&str; 7] = [
    "missing_api_key",
    "invalid_api_key",
    "key_disabled",
    "key_expired",
    "key_misconfigured",
    "insufficient_quota",
    "upstream_credentials",
];

/// Writes rejections as [`OpenAiErrors`] does, with the operator's contact where it helps.
#[derive(Clone, Debug)]
pub(crate) struct HolderErrors {
    contact: Option<Arc<str>>,
    /// The status of a day that is used up.
    exhausted: StatusCode,
}

impl HolderErrors {
    pub(crate) fn new(contact: Option<&str>, exhausted: StatusCode) -> Self {
        Self { contact: contact.map(Into::into), exhausted }
    }
}

impl Reject for HolderErrors {
    fn reject(&self, mut rejection: Rejection) -> Response<Bytes> {
        if rejection.code == "insufficient_quota" {
            rejection.status = self.exhausted;
        }
        if let Some(contact) = &self.contact
            && NEEDS_OPERATOR.contains(&rejection.code)
        {
            rejection.message = format!("{} Contact: {contact}", rejection.message).into();
        }
        rejection.render(&OpenAiErrors)
    }
}
