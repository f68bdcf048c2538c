//! What calls take of the header.

use http::{HeaderMap, header};
use schemars::{Schema, json_schema};

use super::super::refusal::Refusal;
use crate::store::KeyVersion;

/// What a call takes of the header.
pub(in crate::admin) trait FromHeaders: Sized {
    fn from_headers(headers: &HeaderMap) -> Result<Self, Refusal>;

    /// Name, meaning and schema of the header, if there is one.
    fn described() -> Option<(&'static str, &'static str, Schema)>;
}

impl FromHeaders for () {
    fn from_headers(_: &HeaderMap) -> Result<Self, Refusal> {
        Ok(())
    }

    fn described() -> Option<(&'static str, &'static str, Schema)> {
        None
    }
}

/// `If-Match` (RFC 9110, section 13.1.1): the states in which a key may be changed, `None` for any.
pub(in crate::admin) struct IfMatch(pub(in crate::admin) Option<Vec<KeyVersion>>);

impl FromHeaders for IfMatch {
    fn from_headers(headers: &HeaderMap) -> Result<Self, Refusal> {
        const NEEDS: &str = "`*` or the `ETag` of a key, in its quotes";
        let mut versions = Vec::new();
        let mut lines = headers.get_all(header::IF_MATCH).iter().peekable();
        if lines.peek().is_none() {
            return Ok(Self(None));
        }
        for line in lines {
            let line = line.to_str().map_err(|_| Refusal::invalid("If-Match", NEEDS))?;
            if line.trim() == "*" {
                return Ok(Self(None));
            }
            for tag in line.split(',').map(str::trim) {
                let strong = tag.strip_prefix("W/").unwrap_or(tag);
                let inner = strong.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
                let inner = inner.ok_or_else(|| Refusal::invalid("If-Match", NEEDS))?;
                let version = inner.parse::<KeyVersion>();
                let version = version.map_err(|_| Refusal::invalid("If-Match", NEEDS))?;
                // A weak tag matches nothing.
                versions.extend(Some(version).filter(|_| strong == tag));
            }
        }
        Ok(Self(Some(versions)))
    }

    fn described() -> Option<(&'static str, &'static str, Schema)> {
        let one = r#"(W/)?"[0-9a-f]{32}""#;
        let pattern = format!("^(\\*|{one}( *, *{one})*)$");
        let schema = json_schema!({"type": "string", "pattern": pattern});
        let meaning =
            "The `ETag` with which the key was read: 412 if it was changed since. `*` for any.";
        Some(("If-Match", meaning, schema))
    }
}

/// `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): the name of a request that may come
/// again. Read with the quotes of a structured field and without.
pub(in crate::admin) struct IdempotencyKeyHeader(pub(in crate::admin) Option<String>);

impl FromHeaders for IdempotencyKeyHeader {
    fn from_headers(headers: &HeaderMap) -> Result<Self, Refusal> {
        const NEEDS: &str = "1 to 200 letters, digits and `-_.:`, once";
        let mut lines = headers.get_all("idempotency-key").iter();
        let Some(line) = lines.next() else { return Ok(Self(None)) };
        let text = line.to_str().map(str::trim).unwrap_or_default();
        let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let name = quoted.unwrap_or(text);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        let is_name = (1..=200).contains(&name.len()) && name.bytes().all(plain);
        if lines.next().is_some() || !is_name {
            return Err(Refusal::invalid("Idempotency-Key", NEEDS));
        }
        Ok(Self(Some(name.to_owned())))
    }

    fn described() -> Option<(&'static str, &'static str, Schema)> {
        let schema = json_schema!({"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,200}$"});
        let meaning =
            "Names the request: when it comes again within 24 hours, nothing more is issued.";
        Some(("Idempotency-Key", meaning, schema))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_names_the_states_in_which_a_key_may_be_changed() {
        let version = "0123456789abcdef0123456789ABCDEF";
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, value.parse().unwrap());
            IfMatch::from_headers(&headers).map(|IfMatch(versions)| versions.map(|all| all.len()))
        };
        assert_eq!(IfMatch::from_headers(&HeaderMap::new()).unwrap().0, None);
        assert_eq!(read("*").unwrap(), None);
        assert_eq!(read(&format!("\"{version}\"")).unwrap(), Some(1));
        assert_eq!(read(&format!("\"{version}\" , \"{version}\"")).unwrap(), Some(2));
        assert_eq!(read(&format!("W/\"{version}\"")).unwrap(), Some(0));
        for bad in ["", version, "\"", "\"\"", "\"other\"", "\"a\" \"b\"x", ","] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
