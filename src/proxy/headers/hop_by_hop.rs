//! Header fields that concern this connection only, and the framing of bodies.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, header, header::HeaderName};

use super::{NameSet, remove_where};

/// Hop-by-hop headers (RFC 9110, section 7.6.1, and the older names still in use).
pub(super) static HOP_BY_HOP: LazyLock<NameSet> = LazyLock::new(|| {
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

/// Whether there is any hop-by-hop header.
pub(in crate::proxy) fn has_hop_by_hop(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| HOP_BY_HOP.contains(name))
}

/// Removes hop-by-hop headers: the fixed names and those that any `Connection` line nominates.
/// `TE: trailers` stays, as trailers are forwarded.
pub(in crate::proxy) fn strip_hop_by_hop(headers: &mut HeaderMap) {
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

/// Returns the members of a header's comma-separated lines.
fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Whether the request offers an upgrade to websockets: a tunnel in which nothing could be counted.
pub(in crate::proxy) fn is_websocket_upgrade(headers: &HeaderMap) -> bool {
    let mut protocols = members(headers, &header::UPGRADE);
    protocols.any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

/// Whether a response defines the length of its body in one way (RFC 9112, section 6.3). A recipient
/// that chose another way would take a part of the body for the next response.
///
/// Transfer codings other than `chunked` are never requested, and would not be decoded.
pub(in crate::proxy) fn has_unambiguous_length(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
                && !headers.contains_key(header::CONTENT_LENGTH)
        }
        _ => false,
    }
}

/// Merges several equal `Content-Length` values into one, as not every recipient accepts them.
pub(in crate::proxy) fn merge_content_lengths(headers: &mut HeaderMap) {
    let mut lengths = members(headers, &header::CONTENT_LENGTH);
    let (Some(first), Some(_)) = (lengths.next(), lengths.next()) else { return };
    if let Ok(length) = HeaderValue::from_bytes(first) {
        drop(lengths);
        headers.insert(header::CONTENT_LENGTH, length);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::map_of as headers, *};

    #[test]
    fn every_connection_line_is_honored() {
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
    fn a_single_definition_of_the_length_is_unambiguous() {
        let (length, coding) = ("content-length", "transfer-encoding");
        for good in [&[][..], &[(length, "5")], &[(coding, "chunked")], &[(coding, "Chunked ")]] {
            assert!(has_unambiguous_length(&headers(good)), "{good:?}");
        }
        for bad in [
            &[(length, "5"), (coding, "chunked")][..],
            &[(coding, "gzip, chunked")],
            &[(coding, "chunked"), (coding, "chunked")],
            &[(coding, "identity")],
            &[(coding, "")],
        ] {
            assert!(!has_unambiguous_length(&headers(bad)), "{bad:?}");
        }
    }

    #[test]
    fn equal_lengths_are_merged() {
        for lines in [&[("content-length", "5, 5")][..], &[("content-length", "5"); 2]] {
            let mut headers = headers(lines);
            merge_content_lengths(&mut headers);
            assert_eq!(headers.get_all("content-length").iter().collect::<Vec<_>>(), ["5"]);
        }
    }
}
