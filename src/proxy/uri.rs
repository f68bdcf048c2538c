use std::{fmt, str::FromStr};

use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

/// Where the upstream's API begins, for example `https://api.deepseek.com/v1`.
///
/// ```
/// use tower_quota::proxy::UpstreamBase;
///
/// assert!("https://api.deepseek.com/v1".parse::<UpstreamBase>().is_ok());
/// let error = "api.deepseek.com".parse::<UpstreamBase>().unwrap_err();
/// assert_eq!(error.to_string(), "it must begin with http:// or https://");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamBase {
    scheme: Scheme,
    authority: Authority,
    /// Without a slash at its end; empty at the root.
    path: String,
}

/// The text is no base of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUpstreamBase(&'static str);

impl UpstreamBase {
    /// The upstream's URI for a path and query below the mount.
    pub(super) fn join(&self, path: &str, query: Option<&str>) -> Result<Uri, http::Error> {
        let mut target = String::with_capacity(self.path.len() + path.len() + 1);
        target.push_str(&self.path);
        target.push_str(path);
        if target.is_empty() {
            target.push('/');
        }
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::try_from(target)?);
        Ok(Uri::from_parts(parts)?)
    }
}

/// What follows the mount prefix, if `path` lies below it; else the whole path.
pub(super) fn below<'a>(mount: &str, path: &'a str) -> &'a str {
    match path.strip_prefix(mount) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => path,
    }
}

impl FromStr for UpstreamBase {
    type Err = InvalidUpstreamBase;

    fn from_str(text: &str) -> Result<Self, InvalidUpstreamBase> {
        let uri: Uri = text.parse().map_err(|_| InvalidUpstreamBase("it is not a valid URL"))?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.filter(|s| *s == Scheme::HTTP || *s == Scheme::HTTPS);
        let (Some(scheme), Some(authority)) = (scheme, parts.authority) else {
            return Err(InvalidUpstreamBase("it must begin with http:// or https://"));
        };
        if authority.as_str().contains('@') {
            return Err(InvalidUpstreamBase("it must not hold a user name or password"));
        }
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        if path.query().is_some() || text.contains('#') {
            return Err(InvalidUpstreamBase("it must not hold a query or a fragment"));
        }
        let path = path.path().trim_end_matches('/').to_owned();
        Ok(Self { scheme, authority, path })
    }
}

impl fmt::Display for UpstreamBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

impl fmt::Debug for UpstreamBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpstreamBase({self})")
    }
}

impl fmt::Display for InvalidUpstreamBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidUpstreamBase {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_at_a_segment_boundary_and_queries_kept() {
        for (base, path, query, expected) in [
            ("https://h/v1", "/chat", None, "https://h/v1/chat"),
            ("https://h/v1/", "/chat", Some("a=%20b&c"), "https://h/v1/chat?a=%20b&c"),
            ("https://h", "", None, "https://h/"),
            ("http://h:1/x", "", Some(""), "http://h:1/x?"),
        ] {
            let base: UpstreamBase = base.parse().unwrap();
            assert_eq!(base.join(path, query).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn the_mount_is_taken_off_at_a_segment_boundary_only() {
        assert_eq!(below("/v1", "/v1/chat"), "/chat");
        assert_eq!(below("/v1", "/v1"), "");
        assert_eq!(below("/v1", "/v1beta/chat"), "/v1beta/chat");
        assert_eq!(below("/v1", "/chat"), "/chat");
    }

    #[test]
    fn bases_that_are_none_are_refused() {
        for text in ["", "h", "/v1", "ftp://h", "https://u:p@h/", "https://h/?q", "https://h/#f"] {
            assert!(text.parse::<UpstreamBase>().is_err(), "{text}");
        }
    }
}
