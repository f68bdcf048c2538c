use std::{cell::RefCell, net::IpAddr, sync::LazyLock};

use http::{HeaderMap, HeaderValue, header, header::HeaderName, request::Parts};

use crate::copies;

/// Headers that end at this hop (RFC 9110, section 7.6.1, and the older names still in use).
static HOP_BY_HOP: LazyLock<NameSet> = LazyLock::new(|| {
    NameSet::of([
        header::CONNECTION,
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("keep-alive"),
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ])
});

/// What stands in a head only, as it says where a message ends and goes, what it is, and who sends
/// it (RFC 9110, section 6.5.1).
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

/// Which headers do not travel on. They hold for trailers, too. Names are compared with `_` as `-`,
/// as servers that turn names into variables do.
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
    dropped: NameSet,
    /// Those, and what only a trusted peer is believed.
    untrusted: NameSet,
    /// Those whose values do not travel elsewhere either.
    credentials: NameSet,
}

/// In a request's extensions: it comes from a proxy at this address that is trusted. What that says
/// about the client in forwarding headers travels on, and its address is added to
/// `X-Forwarded-For`. Without this such headers are the client's own word, and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedPeer(pub IpAddr);

/// Names, and prefixes of names.
#[derive(Clone, Debug, Default)]
struct NameSet {
    names: Vec<HeaderName>,
    prefixes: Vec<Box<str>>,
    /// A bit for each name's length and first letter: most other headers have none of these.
    marks: [u64; 4],
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl NameSet {
    fn add(&mut self, name: HeaderName) {
        let (word, bit) = mark(name.as_str().as_bytes());
        self.marks[word] |= bit;
        self.names.push(name);
    }

    fn of(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let mut set = Self::default();
        names.into_iter().for_each(|name| set.add(name));
        set
    }

    fn contains(&self, name: &HeaderName) -> bool {
        let text = name.as_str().as_bytes();
        let (word, bit) = mark(text);
        (self.marks[word] & bit != 0
            && self.names.iter().any(|own| is_same(own.as_str().as_bytes(), text)))
            || self.prefixes.iter().any(|prefix| {
                let begin = text.get(..prefix.len());
                begin.is_some_and(|begin| is_same(prefix.as_bytes(), begin))
            })
    }

    /// What proxies say about the client.
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

/// Whether two names are the same where `_` is `-`.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let dash = |byte: u8| if byte == b'_' { b'-' } else { byte };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| dash(*a) == dash(*b))
}

fn mark(name: &[u8]) -> (usize, u64) {
    let first = name.first().copied().unwrap_or_default();
    (usize::from(first % 4), 1 << name.len().min(63))
}

impl HeaderRules {
    /// Rules by which every end-to-end header travels on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rules that drop what a request says about its client, unless it comes from a
    /// [`TrustedPeer`]: `Forwarded`, `X-Forwarded-*`, `X-Real-IP`, `Via` and their like.
    pub fn without_forwarding() -> Self {
        Self { untrusted: NameSet::forwarding(), ..Self::default() }
    }

    /// Drops this header, too.
    #[must_use]
    pub fn without(mut self, name: HeaderName) -> Self {
        self.dropped.add(name.clone());
        self.untrusted.add(name);
        self
    }

    /// Drops this header of a request, too, and every other header and every pair of the query that
    /// holds the last word of its value.
    #[must_use]
    pub fn without_credential(mut self, name: HeaderName) -> Self {
        self.credentials.add(name.clone());
        self.without(name)
    }

    /// Drops all headers whose names start with `prefix`, in any case, too.
    #[must_use]
    pub fn without_prefix(mut self, prefix: impl Into<Box<str>>) -> Self {
        let prefix: Box<str> = prefix.into().to_ascii_lowercase().into();
        self.dropped.prefixes.push(prefix.clone());
        self.untrusted.prefixes.push(prefix);
        self
    }

    /// Applies the rules to the headers of an answer.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        remove_where(headers, |name, _| self.dropped.contains(name));
    }

    /// Applies the rules to trailers. Nobody adds to what those say about the client, so that never
    /// travels on.
    pub(super) fn apply_to_trailers(&self, trailers: &mut HeaderMap) {
        remove_where(trailers, |name, _| {
            HOP_BY_HOP.contains(name) || HEAD_ONLY.contains(name) || self.untrusted.contains(name)
        });
    }

    /// Applies the rules to the head of a request.
    pub(super) fn apply_to_request(&self, head: &mut Parts, peer: Option<TrustedPeer>) {
        let names = if peer.is_some() { &self.dropped } else { &self.untrusted };
        let presented = RefCell::new(Vec::new());
        remove_where(&mut head.headers, |name, value| {
            let drops = names.contains(name);
            if drops && self.credentials.contains(name) {
                presented.borrow_mut().push(value.clone());
            }
            drops
        });
        for value in presented.into_inner() {
            let mut words = value.as_bytes().rsplit(|byte| *byte == b' ');
            let credential = words.find(|word| !word.is_empty()).unwrap_or_default();
            copies::remove_from_headers(&mut head.headers, credential);
            if let Some(uri) = copies::without_pairs(&head.uri, credential) {
                head.uri = uri;
            }
        }
        let headers = &mut head.headers;
        if let Some(TrustedPeer(address)) = peer
            && self.untrusted.contains(&FORWARDED_FOR)
            && !self.dropped.contains(&FORWARDED_FOR)
            && let Ok(address) = HeaderValue::try_from(address.to_string())
        {
            headers.append(FORWARDED_FOR, address);
        }
    }
}

/// Whether there is anything that is meant for this hop only.
pub(super) fn has_hop_by_hop(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| HOP_BY_HOP.contains(name))
}

/// Removes what is meant for this hop only: the fixed names and those that any `Connection` line
/// nominates. `TE: trailers` stays, as trailers are passed on.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if !has_hop_by_hop(headers) {
        return;
    }
    let nominated = members(headers, &header::CONNECTION);
    let nominated = NameSet::of(nominated.filter_map(|name| HeaderName::from_bytes(name).ok()));
    let trailers = members(headers, &header::TE).any(|te| te.eq_ignore_ascii_case(b"trailers"));
    remove_where(headers, |name, _| HOP_BY_HOP.contains(name) || nominated.contains(name));
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// The members of a header's comma-separated lines.
pub(super) fn members<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Removes every header for which `drop` holds, all its lines included.
pub(super) fn remove_where(
    headers: &mut HeaderMap,
    drop: impl Fn(&HeaderName, &HeaderValue) -> bool,
) {
    // Mostly there are few, and no need to allocate.
    loop {
        let mut names = [const { None }; 4];
        let dropped = headers.iter().filter(|(name, value)| drop(name, value));
        for (place, (name, _)) in names.iter_mut().zip(dropped) {
            *place = Some(name.clone());
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

/// The headers of these lines.
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

    fn applied(rules: &HeaderRules, map: HeaderMap, peer: Option<TrustedPeer>) -> HeaderMap {
        let (mut head, ()) = Request::new(()).into_parts();
        head.headers = map;
        rules.apply_to_request(&mut head, peer);
        head.headers
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
    fn an_underscore_disguises_no_name() {
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
    fn what_was_presented_as_a_credential_stands_nowhere_else() {
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
    fn trailers_hold_nothing_that_belongs_into_a_head() {
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
    fn a_trusted_peer_is_believed_and_named() {
        let map = headers(&[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")]);
        let peer = Some(TrustedPeer([10, 0, 0, 1].into()));
        let expected = headers(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(applied(&HeaderRules::without_forwarding(), map, peer), expected);
    }
}
