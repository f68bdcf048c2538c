mod hop_by_hop;

use std::{cell::RefCell, net::IpAddr, sync::LazyLock};

use http::{HeaderMap, HeaderValue, header, header::HeaderName, request::Parts};

use crate::copies;

use hop_by_hop::HOP_BY_HOP;
pub(super) use hop_by_hop::{
    has_hop_by_hop, has_unambiguous_length, is_websocket_upgrade, merge_content_lengths,
    strip_hop_by_hop,
};

/// Headers that are not allowed in trailers, as they control framing, routing, content or
/// authentication (RFC 9110, section 6.5.1).
static HEAD_ONLY: LazyLock<NameSet> = LazyLock::new(|| {
    NameSet::of([
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::EXPECT,
        header::HOST,
        header::LOCATION,
        header::MAX_FORWARDS,
        header::SET_COOKIE,
        header::TRAILER,
    ])
});

/// Rules for which headers are not forwarded. They apply to trailers, too.
///
/// Names are compared with `_` as `-`, as servers do that turn names into variables.
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
    /// Headers that are always removed.
    removed: NameSet,
    /// Headers that are removed unless the peer is trusted.
    removed_if_untrusted: NameSet,
    /// Removed headers whose values are also removed from the rest of the head.
    credentials: NameSet,
}

/// A set of header names and of prefixes of names.
#[derive(Clone, Debug, Default)]
struct NameSet {
    names: Vec<HeaderName>,
    prefixes: Vec<Box<str>>,
    /// A Bloom filter of the names, by length and first letter.
    filter: [u64; 4],
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl NameSet {
    fn add(&mut self, name: HeaderName) {
        let (word, bit) = filter_bit(name.as_str().as_bytes());
        self.filter[word] |= bit;
        self.names.push(name);
    }

    fn of(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let mut set = Self::default();
        names.into_iter().for_each(|name| set.add(name));
        set
    }

    fn contains(&self, name: &HeaderName) -> bool {
        let text = name.as_str().as_bytes();
        let (word, bit) = filter_bit(text);
        (self.filter[word] & bit != 0
            && self.names.iter().any(|member| is_same(member.as_str().as_bytes(), text)))
            || self.prefixes.iter().any(|prefix| {
                let start = text.get(..prefix.len());
                start.is_some_and(|start| is_same(prefix.as_bytes(), start))
            })
    }

    /// Returns the headers in which proxies describe the client.
    fn forwarding() -> Self {
        let names = [
            "cf-connecting-ip",
            "cf-connecting-ipv6",
            "client-ip",
            "fastly-client-ip",
            "forwarded",
            "forwarded-for",
            "true-client-ip",
            "via",
            "x-azure-clientip",
            "x-azure-socketip",
            "x-client-cert",
            "x-client-ip",
            "x-cluster-client-ip",
            "x-envoy-external-address",
            "x-forwarded",
            "x-original-forwarded-for",
            "x-real-ip",
            "x-remote-addr",
            "x-remote-ip",
        ];
        let prefixes = vec!["x-forwarded-".into()];
        Self { prefixes, ..Self::of(names.map(HeaderName::from_static)) }
    }
}

/// Whether two names are the same with `_` as `-`.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let dash = |byte: u8| if byte == b'_' { b'-' } else { byte };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| dash(*a) == dash(*b))
}

fn filter_bit(name: &[u8]) -> (usize, u64) {
    let first = name.first().copied().unwrap_or_default();
    (usize::from(first % 4), 1 << name.len().min(63))
}

impl HeaderRules {
    /// Creates rules that forward every end-to-end header.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates rules that remove headers that describe the client, unless the request comes from a
    /// [trusted peer](crate::request::RequestContext::trusted_peer): `Forwarded`, `X-Forwarded-*`,
    /// `X-Real-IP`, `Via` and similar ones.
    pub fn without_forwarding() -> Self {
        Self { removed_if_untrusted: NameSet::forwarding(), ..Self::default() }
    }

    /// Removes this header, too.
    #[must_use]
    pub fn without(mut self, name: HeaderName) -> Self {
        self.removed.add(name.clone());
        self.removed_if_untrusted.add(name);
        self
    }

    /// Removes this request header, too, and every other header and every query parameter that contains
    /// the last word of its value.
    #[must_use]
    pub fn without_credential(mut self, name: HeaderName) -> Self {
        self.credentials.add(name.clone());
        self.without(name)
    }

    /// Removes all headers whose names start with `prefix`, in any case, too.
    #[must_use]
    pub fn without_prefix(mut self, prefix: impl Into<Box<str>>) -> Self {
        let prefix: Box<str> = prefix.into().to_ascii_lowercase().into();
        self.removed.prefixes.push(prefix.clone());
        self.removed_if_untrusted.prefixes.push(prefix);
        self
    }

    /// Applies the rules to the headers of a response.
    pub(super) fn apply_to_response(&self, headers: &mut HeaderMap) {
        remove_where(headers, |name, _| self.removed.contains(name));
    }

    /// Applies the rules to trailers. Forwarding headers are never kept there, as no proxy appends to
    /// them.
    pub(super) fn apply_to_trailers(&self, trailers: &mut HeaderMap) {
        remove_where(trailers, |name, _| {
            HOP_BY_HOP.contains(name)
                || HEAD_ONLY.contains(name)
                || self.removed_if_untrusted.contains(name)
        });
    }

    /// Applies the rules to the head of a request.
    pub(super) fn apply_to_request(&self, head: &mut Parts, peer: Option<IpAddr>) {
        let names = if peer.is_some() { &self.removed } else { &self.removed_if_untrusted };
        let credentials = RefCell::new(Vec::new());
        remove_where(&mut head.headers, |name, value| {
            let is_removed = names.contains(name);
            if is_removed && self.credentials.contains(name) {
                credentials.borrow_mut().push(value.clone());
            }
            is_removed
        });
        for value in credentials.into_inner() {
            let mut words = value.as_bytes().rsplit(|byte| *byte == b' ');
            let credential = words.find(|word| !word.is_empty()).unwrap_or_default();
            copies::remove_from_headers(&mut head.headers, credential);
            if let Some(uri) = copies::without_pairs(&head.uri, credential) {
                head.uri = uri;
            }
        }
        let headers = &mut head.headers;
        if let Some(peer) = peer
            && self.removed_if_untrusted.contains(&FORWARDED_FOR)
            && !self.removed.contains(&FORWARDED_FOR)
            && let Ok(address) = HeaderValue::try_from(peer.to_string())
        {
            headers.append(FORWARDED_FOR, address);
        }
    }
}

/// Removes every header, all its lines included, for which the predicate holds.
pub(super) fn remove_where(
    headers: &mut HeaderMap,
    predicate: impl Fn(&HeaderName, &HeaderValue) -> bool,
) {
    // In most heads there are at most four, which needs no allocation.
    loop {
        let mut names = [const { None }; 4];
        let matches = headers.iter().filter(|(name, value)| predicate(name, value));
        for (slot, (name, _)) in names.iter_mut().zip(matches) {
            *slot = Some(name.clone());
        }
        let may_be_more = names.iter().all(Option::is_some);
        for name in names.into_iter().flatten() {
            headers.remove(name);
        }
        if !may_be_more {
            return;
        }
    }
}

/// Returns a map of these lines.
#[cfg(test)]
pub(super) fn map_of(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let line = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::{map_of as headers, *};

    fn applied(rules: &HeaderRules, map: HeaderMap, peer: Option<IpAddr>) -> HeaderMap {
        let (mut head, ()) = Request::new(()).into_parts();
        head.headers = map;
        rules.apply_to_request(&mut head, peer);
        head.headers
    }

    #[test]
    fn names_and_prefixes_are_removed() {
        let map = headers(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "5.6.7.8"),
            ("forwarded", "for=x"),
            ("x-ratelimit-a", "1"),
            ("x-rate", "1"),
        ]);
        let rules = HeaderRules::without_forwarding().without_prefix("x-ratelimit-");
        assert_eq!(applied(&rules, map, None), headers(&[("x-rate", "1")]));
    }

    #[test]
    fn an_underscore_does_not_disguise_a_name() {
        let map = headers(&[
            ("x_forwarded_for", "1.2.3.4"),
            ("x-real_ip", "1.2.3.4"),
            ("x_ratelimit-a", "1"),
            ("x_own", "1"),
            ("x_other", "1"),
        ]);
        let rules = HeaderRules::without_forwarding().without_prefix("x-ratelimit-");
        let rules = rules.without(HeaderName::from_static("x-own"));
        assert_eq!(applied(&rules, map, None), headers(&[("x_other", "1")]));
        let mut hop = headers(&[
            ("connection", "x-one, x_two"),
            ("x_one", "1"),
            ("x-two", "2"),
            ("keep_alive", "5"),
            ("transfer_encoding", "chunked"),
            ("x_other", "1"),
        ]);
        strip_hop_by_hop(&mut hop);
        assert_eq!(hop, headers(&[("x_other", "1")]));
    }

    #[test]
    fn copies_of_a_credential_are_removed() {
        let request = Request::get("/v1/x?a=1&key=admin-token-0123456789").body(()).unwrap();
        let (mut head, ()) = request.into_parts();
        head.headers = headers(&[
            ("x-admin-token", "admin-token-0123456789"),
            ("x-goog-api-key", "admin-token-0123456789"),
            ("x-other", "admin-token"),
        ]);
        let rules = HeaderRules::new().without_credential(HeaderName::from_static("x-admin-token"));
        rules.apply_to_request(&mut head, None);
        assert_eq!(head.headers, headers(&[("x-other", "admin-token")]));
        assert_eq!(head.uri, "/v1/x?a=1");
    }

    #[test]
    fn fields_of_the_head_are_removed_from_trailers() {
        let mut map = headers(&[
            ("x-sum", "1"),
            ("authorization", "Bearer x"),
            ("content-length", "5"),
            ("connection", "close"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-own", "1"),
        ]);
        let rules = HeaderRules::without_forwarding().without(HeaderName::from_static("x-own"));
        rules.apply_to_trailers(&mut map);
        assert_eq!(map, headers(&[("x-sum", "1")]));
    }

    #[test]
    fn forwarding_headers_of_a_trusted_peer_are_kept_and_extended() {
        let map = headers(&[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")]);
        let peer = Some([10, 0, 0, 1].into());
        let expected = headers(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(applied(&HeaderRules::without_forwarding(), map, peer), expected);
    }
}
