//! Request headers that calls read.

use http::{HeaderMap, HeaderValue, header};
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
        let invalid = || AdminError::invalid_field("If-Match", EXPECTED);
        let lines = headers.get_all(header::IF_MATCH).iter().map(HeaderValue::to_str);
        let lines: Vec<&str> = lines.collect::<Result<_, _>>().map_err(|_| invalid())?;
        if lines.is_empty() || lines == ["*"] {
            return Ok(Self(None));
        }
        let mut versions = Vec::new();
        for tag in lines.iter().flat_map(|line| line.split(',')) {
            let tag = tag.trim_matches([' ', '\t']);
            let strong = tag.strip_prefix("W/").unwrap_or(tag);
            let version = parse_tag(strong).ok_or_else(invalid)?;
            // `If-Match` compares strongly, so a weak tag never matches.
            versions.extend(Some(version).filter(|_| strong == tag));
        }
        Ok(Self(Some(versions)))
    }

    fn describe() -> Option<(&'static str, &'static str, Schema)> {
        let one = r#"(W/)?"[0-9a-f]{32}""#;
        let pattern = format!("^(\\*|{one}([ \\t]*,[ \\t]*{one})*)$");
        let schema = json_schema!({"type": "string", "pattern": pattern});
        let description =
            "The `ETag` of the key when it was read, or `*`. 412 if the key has changed since.";
        Some(("If-Match", description, schema))
    }
}

/// Parses a quoted version, in the only form in which an `ETag` has it: tags are compared byte by byte.
fn parse_tag(tag: &str) -> Option<KeyVersion> {
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    let version = inner.parse::<KeyVersion>().ok()?;
    (version.to_string() == inner).then_some(version)
}

/// `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): identifies a request that may be
/// repeated. Accepted with and without the quotes of a structured field.
pub(crate) struct IdempotencyKeyHeader(pub(crate) Option<String>);

impl FromHeaders for IdempotencyKeyHeader {
    fn from_headers(headers: &HeaderMap) -> Result<Self, AdminError> {
        const EXPECTED: &str = "1 to 200 letters, digits and `-_.:`, once";
        let mut lines = headers.get_all("idempotency-key").iter();
        let Some(line) = lines.next() else { return Ok(Self(None)) };
        let text = line.to_str().unwrap_or_default();
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
        let pattern = "^([A-Za-z0-9_.:-]{1,200}|\"[A-Za-z0-9_.:-]{1,200}\")$";
        let schema = json_schema!({"type": "string", "pattern": pattern});
        let description = "Identifies the request: if it is repeated within 24 hours, no further keys are issued.";
        Some(("Idempotency-Key", description, schema))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_lists_the_versions_at_which_a_key_may_be_changed() {
        let version = "0123456789abcdef0123456789abcdef";
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
        let uppercase = format!("\"{}\"", version.to_uppercase());
        let any_and_one = format!("*, \"{version}\"");
        for bad in
            ["", version, "\"", "\"\"", "\"other\"", "\"a\" \"b\"x", ",", &uppercase, &any_and_one]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let mut lines = HeaderMap::new();
        for line in ["*", &format!("\"{version}\"")] {
            lines.append(header::IF_MATCH, line.parse().unwrap());
        }
        assert!(IfMatch::from_headers(&lines).is_err(), "any version or one");
    }
}
