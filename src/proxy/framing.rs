use http::{HeaderMap, HeaderValue, header};

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
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = lines.next().map(HeaderValue::as_bytes);
    let Some(first) = first.filter(|first| lines.next().is_some() || first.contains(&b',')) else {
        return;
    };
    let length = first.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    if let Ok(length) = HeaderValue::from_bytes(length) {
        headers.insert(header::CONTENT_LENGTH, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

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
