//! The catalogue of rejections: every error code of the crate and of the gateway, written once.
//!
//! The layers, the proxy, the admin service and `examples/gateway` make their [`Rejection`]s from
//! these codes. Metrics and the OpenAPI description take their reasons and codes from here, and a
//! test holds the tables of `docs/errors.md` against it.
//!
//! ```
//! use tower_quota::error::catalog;
//!
//! let rejection = catalog::INSUFFICIENT_QUOTA.with(&[("limit", &5), ("resets_at", &"midnight")]);
//! assert_eq!(rejection.message, "Today's quota of 5 requests is used up. It resets at midnight.");
//! assert_eq!(rejection.code, catalog::INSUFFICIENT_QUOTA.code());
//! ```

use std::{borrow::Cow, fmt};

use http::{HeaderMap, StatusCode, header};

use super::{Rejection, Retry};

/// What all rejections with one error code have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    retry: RetryAdvice,
    message: &'static str,
}

/// Whether a request may succeed when it is sent again, and the value of `Retry-After` in seconds.
type RetryAdvice = (Retry, Option<u64>);

/// The same request is always rejected.
const FINAL: RetryAdvice = (Retry::Never, None);
/// The same request may succeed later.
const RETRY: RetryAdvice = (Retry::Later, None);

/// The same request may succeed after this number of seconds.
const fn retry_after(seconds: u64) -> RetryAdvice {
    (Retry::Later, Some(seconds))
}

impl ErrorCode {
    /// Returns the response status.
    pub const fn status(self) -> StatusCode {
        self.status
    }

    /// Returns the class of the error, [`Rejection::kind`].
    pub const fn kind(self) -> &'static str {
        self.kind
    }

    /// Returns the stable name of the error, [`Rejection::code`].
    pub const fn code(self) -> &'static str {
        self.code
    }

    /// Returns whether the same request may succeed when it is sent again.
    pub const fn retry(self) -> Retry {
        self.retry.0
    }

    /// Returns the value of `Retry-After` in seconds, if it is always the same.
    pub const fn retry_after(self) -> Option<u64> {
        self.retry.1
    }

    /// Returns a rejection with this code and its usual text.
    pub fn rejection(self) -> Rejection {
        self.with_message(self.message)
    }

    /// Returns a rejection with this code and the usual text, in which each `{name}` is replaced by
    /// its value.
    pub fn with(self, values: &[(&str, &dyn fmt::Display)]) -> Rejection {
        let mut message = String::with_capacity(2 * self.message.len());
        let mut rest = self.message;
        while let Some((text, (name, tail))) =
            rest.split_once('{').and_then(|(text, tail)| Some((text, tail.split_once('}')?)))
        {
            message.push_str(text);
            if let Some((_, value)) = values.iter().find(|(known, _)| *known == name) {
                message.push_str(&value.to_string());
            }
            rest = tail;
        }
        message.push_str(rest);
        self.with_message(message)
    }

    /// Returns a rejection with this code and a more precise text.
    pub fn with_message(self, message: impl Into<Cow<'static, str>>) -> Rejection {
        let Self { status, kind, code, retry: (retry, after), .. } = self;
        let after = after.map(|seconds| (header::RETRY_AFTER, seconds.into()));
        let headers = HeaderMap::from_iter(after);
        Rejection { retry, headers, ..Rejection::permanent(status, kind, code, message) }
    }
}

const INSUFFICIENT: &str = "insufficient_quota";
const INVALID_REQUEST: &str = "invalid_request_error";
const PERMISSION: &str = "permission_error";
const RATE_LIMIT: &str = "rate_limit_error";
const SERVER: &str = "server_error";
const UPSTREAM_ERROR: &str = "upstream_error";

/// Declares a constant for each code, and one for each group of them.
macro_rules! catalog {
    ($(
        $(#[$attribute:meta])*
        $group:ident {
            $($name:ident: $status:ident, $kind:ident, $code:literal, $retry:expr, $message:literal;)*
        }
    )*) => {
        $(
            $(
                #[doc = concat!("`", $code, "`: ", $message)]
                pub const $name: ErrorCode = ErrorCode {
                    status: StatusCode::$status,
                    kind: $kind,
                    code: $code,
                    retry: $retry,
                    message: $message,
                };
            )*
            $(#[$attribute])*
            pub const $group: &[ErrorCode] = &[$($name),*];
        )*
        /// All groups of codes.
        pub const ALL: &[&[ErrorCode]] = &[$($group),*];
    };
}

catalog! {
    /// Codes with which the layers reject requests of a key's holder. Metrics export each of them as
    /// a reason before it first occurs.
    LAYERS {
        MISSING_API_KEY: UNAUTHORIZED, INVALID_REQUEST, "missing_api_key", FINAL,
            "No API key was sent. Send it as `Authorization: Bearer <key>`.";
        CONFLICTING_API_KEYS: BAD_REQUEST, INVALID_REQUEST, "conflicting_api_keys", FINAL,
            "Two different credentials were sent. Send one, as `Authorization: Bearer <key>`.";
        INVALID_API_KEY: UNAUTHORIZED, INVALID_REQUEST, "invalid_api_key", FINAL,
            "The API key is unknown or was deleted.";
        KEY_DISABLED: FORBIDDEN, PERMISSION, "key_disabled", FINAL,
            "This API key is disabled.";
        KEY_EXPIRED: FORBIDDEN, PERMISSION, "key_expired", FINAL,
            "This API key has expired.";
        KEY_MISCONFIGURED: SERVICE_UNAVAILABLE, SERVER, "key_misconfigured", RETRY,
            "This key's record is misconfigured; please ask the person who gave you the key to correct it.";
        INSUFFICIENT_QUOTA: TOO_MANY_REQUESTS, INSUFFICIENT, "insufficient_quota", FINAL,
            "Today's quota of {limit} requests is used up. It resets at {resets_at}.";
        RATE_LIMIT_EXCEEDED: TOO_MANY_REQUESTS, RATE_LIMIT, "rate_limit_exceeded", RETRY,
            "Too many requests; please try again in a moment.";
        QUOTA_SUBJECT_MISSING: INTERNAL_SERVER_ERROR, SERVER, "quota_subject_missing", FINAL,
            "The server does not know whose quota this request counts on.";
        STORE_UNAVAILABLE: SERVICE_UNAVAILABLE, SERVER, "store_unavailable", retry_after(1),
            "The quota store is unavailable; please try again in a moment.";
        REQUEST_TOO_LARGE: PAYLOAD_TOO_LARGE, INVALID_REQUEST, "request_too_large", FINAL,
            "The request body is larger than allowed.";
        REQUEST_BODY_BROKEN: BAD_REQUEST, INVALID_REQUEST, "request_body_broken", FINAL,
            "The request body could not be read.";
    }

    /// Codes for requests that are rejected by their target, their framing or their headers.
    REQUEST {
        MALFORMED_REQUEST: BAD_REQUEST, INVALID_REQUEST, "malformed_request", FINAL,
            "This is no valid HTTP/1 request.";
        AMBIGUOUS_FRAMING: BAD_REQUEST, INVALID_REQUEST, "ambiguous_framing", FINAL,
            "The request must say where its body ends once: by one Content-Length, or by \
             Transfer-Encoding: chunked.";
        INVALID_HOST: BAD_REQUEST, INVALID_REQUEST, "invalid_host", FINAL,
            "The request's host is malformed.";
        INVALID_TARGET: BAD_REQUEST, INVALID_REQUEST, "invalid_target", FINAL,
            "The request target must be a path that starts with a slash.";
        INVALID_METHOD: BAD_REQUEST, INVALID_REQUEST, "invalid_method", FINAL,
            "The request method is too long.";
        INVALID_PATH: BAD_REQUEST, INVALID_REQUEST, "invalid_path", FINAL,
            "The path holds a control character.";
        REQUEST_ABANDONED: BAD_REQUEST, INVALID_REQUEST, "request_abandoned", FINAL,
            "The request body broke off before its end.";
        CROSS_SITE_REQUEST: FORBIDDEN, PERMISSION, "cross_site_request", FINAL,
            "Pages of other sites may not change anything here: this comes from `{from}` and was sent to \
             `{to}`. If both are this gateway, let the proxy in front of it pass `Host` and `Origin` on \
             unchanged, or set PUBLIC_URL to the address in the browser.";
        NOT_FOUND: NOT_FOUND, INVALID_REQUEST, "not_found", FINAL,
            "There is no such path.";
        METHOD_NOT_ALLOWED: METHOD_NOT_ALLOWED, INVALID_REQUEST, "method_not_allowed", FINAL,
            "Only {allow} is allowed here.";
        URI_TOO_LONG: URI_TOO_LONG, INVALID_REQUEST, "uri_too_long", FINAL,
            "The request target is too long.";
        HEADERS_TOO_LARGE: REQUEST_HEADER_FIELDS_TOO_LARGE, INVALID_REQUEST, "headers_too_large", FINAL,
            "The request's headers are too large, or too many.";
        UPGRADE_NOT_SUPPORTED: NOT_IMPLEMENTED, INVALID_REQUEST, "upgrade_not_supported", FINAL,
            "Websockets are not supported here.";
        INTERNAL_ERROR: INTERNAL_SERVER_ERROR, SERVER, "internal_error", RETRY,
            "Something went wrong in the gateway.";
    }

    /// Codes for requests that failed at the upstream. Metrics export each of them as a reason before
    /// it first occurs.
    UPSTREAM {
        UPSTREAM_UNREACHABLE: BAD_GATEWAY, UPSTREAM_ERROR, "upstream_unreachable", RETRY,
            "The upstream cannot be reached.";
        UPSTREAM_PROTOCOL: BAD_GATEWAY, UPSTREAM_ERROR, "upstream_protocol", RETRY,
            "The upstream's response could not be read.";
        UPSTREAM_TIMEOUT: GATEWAY_TIMEOUT, UPSTREAM_ERROR, "upstream_timeout", FINAL,
            "The upstream took too long to respond.";
        UPSTREAM_FAILED: BAD_GATEWAY, UPSTREAM_ERROR, "upstream_failed", RETRY,
            "The upstream failed; please try again later.";
        UPSTREAM_CREDENTIALS: BAD_GATEWAY, UPSTREAM_ERROR, "upstream_credentials", FINAL,
            "The upstream rejects this gateway's own credential or balance. Your key is fine; \
             please inform the person who gave it to you.";
        UPSTREAM_RATE_LIMITED: SERVICE_UNAVAILABLE, UPSTREAM_ERROR, "upstream_rate_limited", RETRY,
            "The upstream is limiting this gateway; please try again later.";
        UPSTREAM_REDIRECT: BAD_GATEWAY, UPSTREAM_ERROR, "upstream_redirect", FINAL,
            "The upstream responded with a redirect, which is not followed.";
        UPSTREAM_UNREADABLE: BAD_GATEWAY, UPSTREAM_ERROR, "upstream_refused", FINAL,
            "The upstream rejected the request; its reason is compressed in a way that cannot be \
             read here.";
    }
    /// Codes of the admin service, of claim links and of the metrics endpoint.
    ADMIN {
        MISSING_ADMIN_TOKEN: UNAUTHORIZED, INVALID_REQUEST, "missing_admin_token", FINAL,
            "An admin token is needed, as `Authorization: Bearer` or `x-admin-token`.";
        INVALID_ADMIN_TOKEN: UNAUTHORIZED, INVALID_REQUEST, "invalid_admin_token", FINAL,
            "The admin token is wrong.";
        INVALID_METRICS_TOKEN: UNAUTHORIZED, INVALID_REQUEST, "invalid_token", FINAL,
            "The admin token or the metrics token is needed.";
        TOO_MANY_ATTEMPTS: TOO_MANY_REQUESTS, RATE_LIMIT, "too_many_attempts", RETRY,
            "Too many attempts without a valid admin token. Wait before the next one.";
        ADDRESS_NOT_ALLOWED: FORBIDDEN, PERMISSION, "address_not_allowed", FINAL,
            "The admin API is not open to this address.";
        INVALID_JSON: BAD_REQUEST, INVALID_REQUEST, "invalid_json", FINAL,
            "The body must be a JSON object.";
        INVALID_CSV: BAD_REQUEST, INVALID_REQUEST, "invalid_csv", FINAL,
            "The body must be CSV.";
        INVALID_FIELD: BAD_REQUEST, INVALID_REQUEST, "invalid_field", FINAL,
            "`{name}` must be {expected}.";
        MISSING_FIELD: BAD_REQUEST, INVALID_REQUEST, "missing_field", FINAL,
            "`{name}` is needed.";
        UNKNOWN_FIELD: BAD_REQUEST, INVALID_REQUEST, "unknown_field", FINAL,
            "`{name}` is not a known field.";
        KEY_NOT_FOUND: NOT_FOUND, INVALID_REQUEST, "key_not_found", FINAL,
            "No such key.";
        KEY_EXISTS: CONFLICT, INVALID_REQUEST, "key_exists", FINAL,
            "This key exists already.";
        KEY_NOT_ACTIVE: CONFLICT, INVALID_REQUEST, "key_not_active", FINAL,
            "The key is disabled or expired, so it cannot be claimed.";
        VERSION_CHANGED: PRECONDITION_FAILED, INVALID_REQUEST, "version_changed", FINAL,
            "The key has changed since it was read. Read it again.";
        CLAIM_NOT_FOUND: NOT_FOUND, INVALID_REQUEST, "claim_not_found", FINAL,
            "No such link.";
        CLAIM_OPENED: GONE, INVALID_REQUEST, "claim_opened", FINAL,
            "This link was opened at {opened_at}.";
        CLAIM_EXPIRED: GONE, INVALID_REQUEST, "claim_expired", FINAL,
            "This link has expired.";
        CLAIM_WITHDRAWN: GONE, INVALID_REQUEST, "claim_withdrawn", FINAL,
            "This link was withdrawn.";
        REQUEST_IN_PROGRESS: CONFLICT, INVALID_REQUEST, "request_in_progress", retry_after(1),
            "A request with this `Idempotency-Key` is in progress. Send it again in a moment.";
        ALREADY_ISSUED: CONFLICT, INVALID_REQUEST, "already_issued", FINAL,
            "This request has already issued keys ({count}: {ids}). Their secrets cannot be shown \
             again: rotate a key to get a new one.";
        IDEMPOTENCY_KEY_REUSED: UNPROCESSABLE_ENTITY, INVALID_REQUEST, "idempotency_key_reused", FINAL,
            "This `Idempotency-Key` belongs to another request.";
        NODE_NOT_FOUND: NOT_FOUND, INVALID_REQUEST, "node_not_found", FINAL,
            "No such node.";
        NODE_IN_USE: CONFLICT, INVALID_REQUEST, "node_in_use", FINAL,
            "Node {number} is connected, or was a few seconds ago. Stop its process first: if it ends by itself, \
             nothing is missing.";
        NODE_CLOSED: CONFLICT, INVALID_REQUEST, "node_closed", FINAL,
            "Node {number} holds nothing: its journal was closed, or it was released before.";
        IN_PROGRESS: CONFLICT, INVALID_REQUEST, "in_progress", retry_after(5),
            "This is in progress already; please try again once it is over.";
        BACKUP_FAILED: SERVICE_UNAVAILABLE, SERVER, "backup_failed", retry_after(5),
            "The backup failed; the log says why.";
        NOT_SUPPORTED: NOT_IMPLEMENTED, INVALID_REQUEST, "not_supported", FINAL,
            "The quota store cannot do this.";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut codes = HashSet::new();
        for entry in ALL.iter().copied().flatten() {
            assert!(codes.insert(entry.code), "{}", entry.code);
        }
    }

    #[test]
    fn placeholders_in_values_are_not_replaced() {
        let rejection = INVALID_FIELD.with(&[("name", &"{expected}"), ("expected", &"`*`")]);
        assert_eq!(rejection.message, "`{expected}` must be `*`.");
    }
}
