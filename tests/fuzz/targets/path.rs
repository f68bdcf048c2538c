//! A path that is accepted means the same however often it is decoded.
#![no_main]

use http::Request;
use libfuzzer_sys::fuzz_target;
use tower_quota::proxy::RequestTarget;

fuzz_target!(|text: &str| {
    let request = Request::get(text).header("host", "gateway").body(());
    let Ok((head, ())) = request.map(Request::into_parts) else { return };
    let Ok(target) = RequestTarget::check(&head) else { return };
    assert_eq!(Some(target.path_and_query()), head.uri.path_and_query());
    let mut path = target.path().as_bytes().to_vec();
    for _ in 0..8 {
        assert_plain(&path, text);
        path = decoded(&path);
    }
});

/// No segment but the last is empty, none is a dot segment to any server, and nothing but `/`
/// divides them.
fn assert_plain(path: &[u8], text: &str) {
    assert!(path.starts_with(b"/"), "{text:?}");
    assert!(!path.contains(&b'\\') && !path.iter().any(u8::is_ascii_control), "{text:?}");
    let segments: Vec<&[u8]> = path[1..].split(|byte| *byte == b'/').collect();
    let (_, others) = segments.split_last().unwrap();
    assert!(others.iter().all(|segment| !segment.is_empty()), "{text:?}");
    for segment in segments {
        let name = segment.split(|byte| *byte == b';').next().unwrap();
        assert!(!matches!(name, b"." | b".."), "{text:?}");
    }
    assert!(str::from_utf8(path).is_ok(), "{text:?}");
}

fn decoded(mut text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    while let [first, rest @ ..] = text {
        let digits = rest.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match digits {
            Some(digits) if *first == b'%' => {
                let digits = str::from_utf8(digits).unwrap();
                decoded.push(u8::from_str_radix(digits, 16).unwrap());
                text = &rest[2..];
            }
            _ => {
                decoded.push(*first);
                text = rest;
            }
        }
    }
    decoded
}
