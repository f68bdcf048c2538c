//! A key opens by its exact text only, and its mask does not disclose it.
#![no_main]

use std::convert::Infallible;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use libfuzzer_sys::fuzz_target;
use tower::{ServiceExt, service_fn};
use tower_layer::Layer;
use tower_quota::{
    auth::TrialKeyAuthLayer,
    key::{Limit, KeyId, KeyRecord, SecretKey},
    store::memory::MemoryStore,
};

const NAMES: [&str; 3] = ["authorization", "x-trial-key", "x-api-key"];
const ISSUED: &str = "trial-key-manual-123";

fuzz_target!(|data: (&str, Vec<(u8, &[u8])>)| {
    let (text, lines) = data;
    parse(text);
    let mut request = Request::new(());
    for (name, value) in &lines {
        let name = HeaderName::from_static(NAMES[usize::from(*name) % NAMES.len()]);
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        request.headers_mut().append(name, value);
    }
    let status = present(request);
    let presented: Vec<String> = lines.iter().filter_map(|(name, value)| key(*name, value)).collect();
    let expected = match &presented[..] {
        [] => StatusCode::UNAUTHORIZED,
        [first, others @ ..] if others.iter().any(|other| other != first) => {
            StatusCode::BAD_REQUEST
        }
        [first, ..] if first == ISSUED => StatusCode::OK,
        _ => StatusCode::UNAUTHORIZED,
    };
    assert_eq!(status, expected, "{lines:?}");
});

fn parse(text: &str) {
    let is_key =
        (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let key = SecretKey::parse(text);
    assert_eq!(key.is_ok(), is_key);
    let Ok(key) = key else { return };
    assert_eq!(key.expose(), text);
    assert_eq!(format!("{key:?}"), "SecretKey(…)");
    let masked = key.masked();
    let (head, tail) = masked.split_once('…').unwrap();
    assert!(text.starts_with(head) && text.ends_with(tail));
    assert!(head.len() + tail.len() + 8 <= text.len() || masked == "…");
}

/// The credential that a line presents: what follows `Bearer`, or the whole value.
fn key(name: u8, value: &[u8]) -> Option<String> {
    let value = String::from_utf8_lossy(value);
    let value = bare(&value);
    let key = match usize::from(name) % NAMES.len() {
        0 => {
            let (scheme, key) = value.split_once(char::is_whitespace)?;
            scheme.eq_ignore_ascii_case("bearer").then(|| bare(key))?
        }
        _ => value,
    };
    (!key.is_empty()).then(|| key.to_owned())
}

/// The text with nothing wrapped around it.
fn bare(text: &str) -> &str {
    let text = text.trim();
    let mut letters = text.chars();
    let ends = (letters.next(), letters.next_back());
    match ends {
        (Some('"'), Some('"'))
        | (Some('\''), Some('\''))
        | (Some('`'), Some('`'))
        | (Some('<'), Some('>'))
        | (Some('['), Some(']'))
        | (Some('{'), Some('}'))
        | (Some('('), Some(')'))
        | (Some('“'), Some('”'))
        | (Some('‘'), Some('’')) => bare(letters.as_str()),
        _ => text,
    }
}

fn present(request: Request<()>) -> StatusCode {
    let store = MemoryStore::new();
    let record = KeyRecord::new(KeyId::from("id"), Limit::Unlimited);
    store.insert(&SecretKey::parse(ISSUED).unwrap(), record).unwrap();
    let inner = service_fn(|request: Request<()>| async move {
        assert!(NAMES.iter().all(|name| !request.headers().contains_key(*name)));
        Ok::<_, Infallible>(Response::new(http_body_util::Full::<bytes::Bytes>::default()))
    });
    let service = TrialKeyAuthLayer::new(store).layer(inner);
    RUNTIME.with(|runtime| runtime.block_on(service.oneshot(request))).unwrap().status()
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().build().unwrap();
}
