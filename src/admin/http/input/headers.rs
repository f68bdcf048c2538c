//! Request headers that calls read.

use http::{HeaderMap, header};
use schemars::{Schema, json_schema};

use crate::{admin::http::error::AdminError, key::KeyVersion};

/// Parses a request header.
pub(crate) trait FromHeaders: Sized {
    fn from_headers(headers: &HeaderMap) -> Result<Self, AdminError>;

    /// Returns name, description and schema of the header, if there is one.
    fn describe() -> Option<(&'static str, &'static str, Schema)> {
        None
    }
}

impl FromHeaders for () {
    fn from_headers(_: &HeaderMap) -> Result<Self, AdminError> {
        Ok(())
    }
}

/// `If-Match` (RFC 9110, section 13.1.1): the versions at which a key may be changed, `None` for any.
pub(crate) struct IfMatch(pub(crate) Option<Vec<KeyVersion>>);

impl FromHeaders for IfMatch {
    fn from_headers(headers: &HeaderMap) -> Result<Self, AdminError> {
        const EXPECTED: &str = "`*` or the `ETag` of a key, in its quotes";
        let mut versions = Vec::new();
        let mut lines = headers.get_all(header::IF_MATCH).iter().peekable();
        if lines.peek().is_none() {
            return Ok(Self(None));
        }
        for line in lines {
            let line =
                line.to_str().map_err(|_| AdminError::invalid_field("If-Match", EXPECTED))?;
            if line.trim() == "*" {
                return Ok(Self(None));
            }
            for tag in line.split(',').map(str::trim) {
                let strong = tag.strip_prefix("W/").unwrap_or(tag);
                let inner = strong.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
                let inner = inner.ok_or_else(|| AdminError::invalid_field("If-Match", EXPECTED))?;
                let version = inner.parse::<KeyVersion>();
                let version =
                    version.map_err(|_| AdminError::invalid_field("If-Match", EXPECTED))?;
                // `If-Match` compares strongly, so a weak tag never matches.
                versions.extend(Some(version).filter(|_| strong == tag));
            }
        }
        Ok(Self(Some(versions)))
    }

    fn describe() -> Option<(&'static str, &'static str, Schema)> {
        let one = r#"(W/)?"[0-9a-f]{32}""#;
        let pattern = format!("^(\\*|{one}( *, *{one})*)$");
        let schema = json_schema!({"type": "string", "pattern": pattern});
        let description =
            "The `ETag` of the key when it was read, or `*`. 412 if the key has changed since.";
        Some(("If-Match", description, schema))
    }
}

/// `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): identifies a request that may be
/// repeated. Accepted with and without the quotes of a structured field.
pub(crate) struct IdempotencyKeyHeader(pub(crate) Option<String>);

impl FromHeaders for IdempotencyKeyHeader {
    fn from_headers(headers: &HeaderMap) -> Result<Self, AdminError> {
        const EXPECTED: &str = "1 to 200 letters, digits and `-_.:`, once";
        let mut lines = headers.get_all("idempotency-key").iter();
        let Some(line) = lines.next() else { return Ok(Self(None)) };
        let text = line.to_str().map(str::trim).unwrap_or_default();
        let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let name = quoted.unwrap_or(text);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        let is_valid = (1..=200).contains(&name.len()) && name.bytes().all(plain);
        if lines.next().is_some() || !is_valid {
            return Err(AdminError::invalid_field("Idempotency-Key", EXPECTED));
        }
        Ok(Self(Some(name.to_owned())))
    }

    fn describe() -> Option<(&'static str, &'static str, Schema)> {
        let schema = json_schema!({"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,200}$"});
        let description = "Identifies the request: if it is repeated within 24 hours, no further keys are issued.";
        Some(("Idempotency-Key", description, schema))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_lists_the_versions_at_which_a_key_may_be_changed() {
        let version = "0123456789abcdef0123456789ABCDEF";
        let parse = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, value.parse().unwrap());
            IfMatch::from_headers(&headers).map(|IfMatch(versions)| versions.map(|all| all.len()))
        };
        assert_eq!(IfMatch::from_headers(&HeaderMap::new()).unwrap().0, None);
        assert_eq!(parse("*").unwrap(), None);
        assert_eq!(parse(&format!("\"{version}\"")).unwrap(), Some(1));
        assert_eq!(parse(&format!("\"{version}\" , \"{version}\"")).unwrap(), Some(2));
        assert_eq!(parse(&format!("W/\"{version}\"")).unwrap(), Some(0));
        for bad in ["", version, "\"", "\"\"", "\"other\"", "\"a\" \"b\"x", ","] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
