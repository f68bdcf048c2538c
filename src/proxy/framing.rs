use http::{HeaderMap, HeaderValue, header};

use super::headers::members;

/// Whether an answer says in one way where its body ends (RFC 9112, section 6.3). A reader that
/// believed another one would take a part of it for the next answer.
///
/// Transfer codings beside `chunked` are never asked for, and the body would stay in them.
pub(super) fn is_clear(headers: &HeaderMap) -> bool {
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

/// Makes one `Content-Length` of several that say the same, as not every reader takes them.
pub(super) fn name_one_length(headers: &mut HeaderMap) {
    let mut lengths = members(headers, &header::CONTENT_LENGTH);
    let (Some(first), Some(_)) = (lengths.next(), lengths.next()) else { return };
    if let Ok(length) = HeaderValue::from_bytes(first) {
        drop(lengths);
        headers.insert(header::CONTENT_LENGTH, length);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::headers::map_of as headers, *};

    #[test]
    fn one_way_to_end_is_clear() {
        let (length, coding) = ("content-length", "transfer-encoding");
        for clear in [&[][..], &[(length, "5")], &[(coding, "chunked")], &[(coding, "Chunked ")]] {
            assert!(is_clear(&headers(clear)), "{clear:?}");
        }
        for unclear in [
            &[(length, "5"), (coding, "chunked")][..],
            &[(coding, "gzip, chunked")],
            &[(coding, "chunked"), (coding, "chunked")],
            &[(coding, "identity")],
            &[(coding, "")],
        ] {
            assert!(!is_clear(&headers(unclear)), "{unclear:?}");
        }
    }

    #[test]
    fn equal_lengths_become_one() {
        for lines in [&[("content-length", "5, 5")][..], &[("content-length", "5"); 2]] {
            let mut headers = headers(lines);
            name_one_length(&mut headers);
            assert_eq!(headers.get_all("content-length").iter().collect::<Vec<_>>(), ["5"]);
        }
    }
}
