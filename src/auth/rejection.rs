use std::{error::Error, fmt};

use http::{HeaderValue, header::WWW_AUTHENTICATE};

use super::CredentialSource;
use crate::error::{Rejection, StoreError, catalog};

/// Why a request was rejected.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AuthRejection {
    /// The request has no credential.
    MissingKey,
    /// The request has a credential that cannot be a key.
    Malformed(MalformedCredential),
    /// The request has two different credentials.
    ConflictingKeys,
    /// No such key was issued, or it was deleted.
    InvalidKey,
    /// The key's checksum does not match: most likely a typo.
    MistypedKey,
    /// The key is disabled.
    DisabledKey,
    /// The key has expired.
    ExpiredKey,
    /// The store could not look the key up.
    Store(StoreError),
}

impl AuthRejection {
    /// Returns the rejection, whose message says how the source expects a credential.
    pub(super) fn with_hint(&self, source: &dyn CredentialSource) -> Rejection {
        let mut rejection = Rejection::from(self);
        let sentence = match self {
            Self::MissingKey => "No API key was sent. Send it",
            Self::ConflictingKeys => "Two different credentials were sent. Send one,",
            _ => return rejection,
        };
        if let Some(hint) = source.hint() {
            rejection.message = format!("{sentence} {hint}.").into();
        }
        rejection
    }
}

impl fmt::Display for AuthRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingKey => "no key",
            Self::Malformed(_) => "malformed credential",
            Self::ConflictingKeys => "different credentials",
            Self::InvalidKey => "unknown key",
            Self::MistypedKey => "mistyped key",
            Self::DisabledKey => "disabled key",
            Self::ExpiredKey => "expired key",
            Self::Store(_) => "key store failed",
        })
    }
}

impl Error for AuthRejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Malformed(malformed) => Some(malformed),
            Self::Store(error) => Some(error),
            Self::MissingKey
            | Self::ConflictingKeys
            | Self::InvalidKey
            | Self::MistypedKey
            | Self::DisabledKey
            | Self::ExpiredKey => None,
        }
    }
}

/// What is wrong with a malformed credential. Holds no part of the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MalformedCredential {
    /// `Authorization` is a single word.
    NoScheme,
    /// `Authorization` has another scheme than `Bearer`.
    OtherScheme,
    /// `Authorization` is `Bearer` without a key.
    NoKey,
    /// The key itself begins with `Bearer`.
    DoubledScheme,
    /// The key contains white space or a control character.
    Space,
    /// The key contains an invisible character, such as U+200B.
    Invisible,
    /// The key contains full-width characters.
    FullWidth,
    /// The key is masked, as in lists of keys.
    Masked,
    /// The key contains any other character that is not visible ASCII.
    NotAscii,
    /// The key has more than 256 characters.
    TooLong,
}

impl fmt::Display for MalformedCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Rejection::from(self).message)
    }
}

impl Error for MalformedCredential {}

impl From<&AuthRejection> for Rejection {
    fn from(reason: &AuthRejection) -> Self {
        let rejection = match reason {
            AuthRejection::MissingKey => challenged(catalog::MISSING_API_KEY.rejection()),
            AuthRejection::Malformed(malformed) => malformed.into(),
            AuthRejection::ConflictingKeys => catalog::CONFLICTING_API_KEYS.rejection(),
            AuthRejection::InvalidKey => challenged(catalog::INVALID_API_KEY.rejection()),
            AuthRejection::MistypedKey => {
                invalid("The API key is mistyped or incomplete: its checksum does not match.")
            }
            AuthRejection::DisabledKey => catalog::KEY_DISABLED.rejection(),
            AuthRejection::ExpiredKey => catalog::KEY_EXPIRED.rejection(),
            AuthRejection::Store(error) => Rejection::from(error),
        };
        rejection.with_reason(reason.clone())
    }
}

impl From<&MalformedCredential> for Rejection {
    fn from(malformed: &MalformedCredential) -> Self {
        use MalformedCredential as Malformed;
        match malformed {
            Malformed::NoScheme => missing(
                "The `Authorization` header has no scheme before the key. Send it as \
                 `Authorization: Bearer <key>`.",
            ),
            Malformed::OtherScheme => missing(
                "The `Authorization` header has another scheme than `Bearer`. Send the key as \
                 `Authorization: Bearer <key>`.",
            ),
            Malformed::NoKey => missing(
                "The `Authorization` header holds `Bearer` and no key behind it. Is the variable \
                 empty that it is made from?",
            ),
            Malformed::DoubledScheme => invalid(
                "The API key begins with `Bearer`, which is not a part of it. Send \
                 `Authorization: Bearer <key>` with the word once, or the key alone as `x-api-key`.",
            ),
            Malformed::Space => {
                invalid("The API key has white space or a line break within. Copy it again.")
            }
            Malformed::Invisible => invalid(
                "The API key holds an invisible character (such as U+200B), which came with it when \
                 it was copied. Copy it from another place, or type it.",
            ),
            Malformed::FullWidth => invalid(
                "The API key holds full-width characters. Copy it again, with the input method off.",
            ),
            Malformed::Masked => invalid(
                "This is the masked form of an API key, as lists show it. The whole key is shown once, \
                 when it is issued.",
            ),
            Malformed::NotAscii => invalid(
                "The API key holds characters that are no visible ASCII, which no key has. Was a \
                 placeholder left in its place?",
            ),
            Malformed::TooLong => {
                invalid("The API key has more than 256 characters, which no key has.")
            }
        }
    }
}

impl From<MalformedCredential> for AuthRejection {
    fn from(malformed: MalformedCredential) -> Self {
        Self::Malformed(malformed)
    }
}

fn missing(message: &'static str) -> Rejection {
    challenged(catalog::MISSING_API_KEY.with_message(message))
}

fn invalid(message: &'static str) -> Rejection {
    challenged(catalog::INVALID_API_KEY.with_message(message))
}

/// Adds the challenge of a 401 (RFC 6750, section 3).
fn challenged(rejection: Rejection) -> Rejection {
    let challenge = match rejection.code == catalog::INVALID_API_KEY.code() {
        true => "Bearer error=\"invalid_token\"",
        false => "Bearer",
    };
    rejection.header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}
