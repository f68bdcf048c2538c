use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};

use crate::error::{Rejection, StoreError};

/// Why a request was not let through.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AuthRejection {
    /// No credential was sent.
    MissingKey,
    /// Two different credentials were sent.
    ConflictingKeys,
    /// No such key was issued, or it was deleted.
    InvalidKey,
    /// The key's checksum does not hold: most likely a typo.
    MistypedKey,
    /// The operator has switched the key off.
    DisabledKey,
    /// The key has expired.
    ExpiredKey,
    /// The store could not tell.
    Store(StoreError),
}

const INVALID_REQUEST: &str = "invalid_request_error";
const PERMISSION: &str = "permission_error";

impl From<&AuthRejection> for Rejection {
    fn from(rejection: &AuthRejection) -> Self {
        let new = Rejection::permanent;
        match rejection {
            AuthRejection::MissingKey => new(
                StatusCode::UNAUTHORIZED,
                INVALID_REQUEST,
                "missing_api_key",
                "No API key was sent. Send it as `Authorization: Bearer <key>`.",
            )
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            AuthRejection::ConflictingKeys => new(
                StatusCode::BAD_REQUEST,
                INVALID_REQUEST,
                "conflicting_api_keys",
                "Two different credentials were sent. Send one, as `Authorization: Bearer <key>`.",
            ),
            AuthRejection::InvalidKey => invalid("The API key is unknown or was deleted."),
            AuthRejection::MistypedKey => {
                invalid("The API key is mistyped or incomplete: its checksum does not match.")
            }
            AuthRejection::DisabledKey => {
                new(StatusCode::FORBIDDEN, PERMISSION, "key_disabled", "This API key is disabled.")
            }
            AuthRejection::ExpiredKey => {
                new(StatusCode::FORBIDDEN, PERMISSION, "key_expired", "This API key has expired.")
            }
            AuthRejection::Store(error) => Rejection::from(error),
        }
    }
}

fn invalid(message: &'static str) -> Rejection {
    Rejection::permanent(StatusCode::UNAUTHORIZED, INVALID_REQUEST, "invalid_api_key", message)
        .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""))
}
