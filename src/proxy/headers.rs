use http::{HeaderMap, HeaderValue, header, header::HeaderName};

/// Headers that end at this hop (RFC 9110, section 7.6.1, and the older names still in use).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Which headers do not travel on.
///
/// ```
/// use http::header;
/// use tower_quota::proxy::HeaderRules;
///
/// let rules = HeaderRules::new()
///     .without(header::SET_COOKIE)
///     .without_prefix("x-ratelimit-");
/// ```
#[derive(Clone, Debug, Default)]
pub struct HeaderRules {
    names: Vec<HeaderName>,
    prefixes: Vec<Box<str>>,
}

impl HeaderRules {
    /// Rules by which every end-to-end header travels on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rules that drop what earlier proxies said about the client: `Forwarded`,
    /// `X-Forwarded-*`, `X-Real-IP`, `Via` and their like.
    pub fn without_forwarding() -> Self {
        let names = [
            header::FORWARDED,
            header::VIA,
            HeaderName::from_static("cf-connecting-ip"),
            HeaderName::from_static("client-ip"),
            HeaderName::from_static("true-client-ip"),
            HeaderName::from_static("x-client-ip"),
            HeaderName::from_static("x-cluster-client-ip"),
            HeaderName::from_static("x-real-ip"),
        ];
        Self { names: names.into(), prefixes: vec!["x-forwarded-".into()] }
    }

    /// Drops this header, too.
    #[must_use]
    pub fn without(mut self, name: HeaderName) -> Self {
        self.names.push(name);
        self
    }

    /// Drops all headers whose names start with `prefix` (in lower case), too.
    #[must_use]
    pub fn without_prefix(mut self, prefix: impl Into<Box<str>>) -> Self {
        self.prefixes.push(prefix.into());
        self
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        remove_where(headers, |name, _| {
            self.names.contains(name)
                || self.prefixes.iter().any(|prefix| name.as_str().starts_with(&**prefix))
        });
    }
}

/// Removes what is meant for this hop only: the fixed names and those that any `Connection` line
/// nominates. `TE: trailers` stays, as trailers are passed on.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    let trailers = headers
        .get_all(header::TE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    for name in HOP_BY_HOP.iter().chain(&nominated) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes every header for which `drop` holds, all its lines included.
pub(super) fn remove_where(
    headers: &mut HeaderMap,
    drop: impl Fn(&HeaderName, &HeaderValue) -> bool,
) {
    let dropped: Vec<HeaderName> = headers
        .iter()
        .filter(|(name, value)| drop(name, value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in &dropped {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn every_connection_line_counts() {
        let mut map = headers(&[
            ("connection", "close, X-One"),
            ("connection", "x-two,, bad name"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "5"),
            ("te", "gzip;q=1, Trailers"),
            ("upgrade", "websocket"),
        ]);
        strip_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("x-three", "3"), ("te", "trailers")]));
    }

    #[test]
    fn names_and_prefixes_are_dropped() {
        let mut map = headers(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "5.6.7.8"),
            ("forwarded", "for=x"),
            ("x-ratelimit-a", "1"),
            ("x-rate", "1"),
        ]);
        HeaderRules::without_forwarding().without_prefix("x-ratelimit-").apply(&mut map);
        assert_eq!(map, headers(&[("x-rate", "1")]));
    }
}
