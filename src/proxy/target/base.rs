use std::{fmt, str::FromStr};

use http::{
    HeaderValue, Uri,
    uri::{Authority, Parts, PathAndQuery, Scheme},
};

use super::path;

/// The upstream's base URL: scheme, authority and base path.
///
/// ```
/// use tower_quota::proxy::UpstreamBase;
///
/// let base: UpstreamBase = "https://api.example.com/v1/".parse()?;
/// assert_eq!(base.to_string(), "https://api.example.com/v1");
/// assert!("api.example.com".parse::<UpstreamBase>().is_err());
/// # Ok::<(), tower_quota::proxy::InvalidBase>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamBase {
    scheme: Scheme,
    authority: Authority,
    path: Box<str>,
    host: HeaderValue,
}

/// The error of an invalid base URL; its text says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidBase(&'static str);

impl FromStr for UpstreamBase {
    type Err = InvalidBase;

    fn from_str(text: &str) -> Result<Self, InvalidBase> {
        if text.contains('#') {
            return Err(InvalidBase("has a fragment"));
        }
        let uri = Uri::from_str(text).map_err(|_| InvalidBase("is not a URL"))?;
        let parts = uri.into_parts();
        let scheme = parts
            .scheme
            .filter(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS)
            .ok_or(InvalidBase("does not start with http:// or https://"))?;
        let authority = parts.authority.ok_or(InvalidBase("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(InvalidBase("holds a user name or password"));
        }
        if authority.host().is_empty() {
            return Err(InvalidBase("names no host"));
        }
        let port = authority.as_str()[authority.host().len()..].strip_prefix(':');
        if port.is_some_and(|port| !port.is_empty() && authority.port_u16().is_none()) {
            return Err(InvalidBase("has a port that is no number up to 65535"));
        }
        let target = parts.path_and_query;
        if target.as_ref().is_some_and(|target| target.query().is_some()) {
            return Err(InvalidBase("has a query"));
        }
        let path = target.as_ref().map_or("/", PathAndQuery::path);
        if path::check(path).is_err() {
            return Err(InvalidBase(
                "has a path with empty segments, dot segments or invalid characters",
            ));
        }
        let host = HeaderValue::from_str(host_of(&scheme, &authority))
            .map_err(|_| InvalidBase("names no valid host"))?;
        Ok(Self { scheme, authority, path: path.trim_end_matches('/').into(), host })
    }
}

impl UpstreamBase {
    /// Returns the upstream's URL for `target`: the base path, the target's path without the prefix
    /// `mount`, and the query byte for byte. `mount` is removed only where a segment ends, and only if
    /// the path starts with it.
    pub(in crate::proxy) fn join(
        &self,
        mount: &str,
        target: &PathAndQuery,
    ) -> Result<Uri, http::Error> {
        let joined = if self.replaces_itself(mount, target.path()) {
            target.clone()
        } else {
            self.joined(mount, target).try_into()?
        };
        let mut parts = Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(joined);
        Ok(Uri::from_parts(parts)?)
    }

    /// Returns the `Host` header for requests that are certain to be HTTP/1: over TLS they may be HTTP/2.
    pub(in crate::proxy) fn host(&self) -> Option<&HeaderValue> {
        (self.scheme == Scheme::HTTP).then_some(&self.host)
    }

    /// Whether the base path is the same as the mount that it replaces.
    fn replaces_itself(&self, mount: &str, path: &str) -> bool {
        let rest = path.strip_prefix(mount);
        *self.path == *mount && rest.is_some_and(|rest| rest.starts_with('/'))
    }

    fn joined(&self, mount: &str, target: &PathAndQuery) -> String {
        let path = target.path();
        let rest = path
            .strip_prefix(mount)
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
            .unwrap_or(path);
        let path = match (&*self.path, rest) {
            ("", "") => "/",
            _ => rest,
        };
        let mut joined = String::with_capacity(self.path.len() + target.as_str().len());
        joined.push_str(&self.path);
        joined.push_str(path);
        if let Some(query) = target.query() {
            joined.push('?');
            joined.push_str(query);
        }
        joined
    }
}

/// Returns the authority without the scheme's default port (RFC 9110, section 7.2).
fn host_of<'a>(scheme: &Scheme, authority: &'a Authority) -> &'a str {
    let text = authority.as_str();
    let default = if *scheme == Scheme::HTTP { ":80" } else { ":443" };
    text.strip_suffix(default).or(text.strip_suffix(':')).unwrap_or(text)
}

impl fmt::Display for UpstreamBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

impl fmt::Display for InvalidBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the upstream's base URL {}", self.0)
    }
}

impl std::error::Error for InvalidBase {}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(base: &str, mount: &str, target: &str) -> String {
        let base: UpstreamBase = base.parse().unwrap();
        let target = target.parse().unwrap();
        base.join(mount, &target).unwrap().to_string()
    }

    #[test]
    fn the_mount_is_replaced_at_segment_ends() {
        for (base, mount, target, joined) in [
            ("http://a/v1", "/v1", "/v1/x", "http://a/v1/x"),
            ("http://a/v1/", "/v1", "/v1/x/", "http://a/v1/x/"),
            ("http://a", "/v1", "/v1/x", "http://a/x"),
            ("http://a", "/v1", "/v1", "http://a/"),
            ("http://a/b", "/v1", "/v1", "http://a/b"),
            ("http://a/b", "/v1", "/v1/", "http://a/b/"),
            ("http://a/b", "/v1", "/v1x/y", "http://a/b/v1x/y"),
            ("http://a/b", "/v1", "/chat/completions", "http://a/b/chat/completions"),
            ("http://a/b", "", "/v1/x", "http://a/b/v1/x"),
            ("https://a:8443/b", "/v1", "/v1?x=%2e&y=//", "https://a:8443/b?x=%2e&y=//"),
            ("http://a/b", "/v1", "/v1/m%2Fn?", "http://a/b/m%2Fn?"),
            ("http://[::1]:9", "", "/v1/x?a=b?c", "http://[::1]:9/v1/x?a=b?c"),
        ] {
            assert_eq!(join(base, mount, target), joined, "{base} {target}");
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (text, reason) in [
            ("", "not a URL"),
            ("a b", "not a URL"),
            ("api.example.com", "http://"),
            ("ftp://a", "http://"),
            ("/v1", "http://"),
            ("https://user:pass@a/", "password"),
            ("https://a/v1?x=1", "query"),
            ("https://a/v1#x", "fragment"),
            ("https://a/../v1", "dot segments"),
            ("https://a//v1", "empty segments"),
            ("https://a:99999/", "port"),
        ] {
            let error = text.parse::<UpstreamBase>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
