//! Which responses are changed, and how their bodies pass.

use http::HeaderValue;
use http_body::Body;
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt};
use tower_quota::openai::stream_usage::{StreamUsageLayer, UsageRequested};

use super::scene::{
    CHANGED, CONTENT, DONE, Script, USAGE, Upstream, chat, hidden, stream, text, trailers,
};

#[tokio::test]
async fn responses_to_others_pass_untouched() {
    let events = [CONTENT, USAGE, DONE].concat();
    let response = || {
        let mut response = stream(Script::text(&events));
        response.headers_mut().insert("content-length", events.len().into());
        response
    };
    // Its client has requested usage.
    let service = StreamUsageLayer::new().layer(Upstream::responding(response()));
    let seen = service.oneshot(chat(Script::text(CHANGED))).await.unwrap();
    assert_eq!(seen.headers()["content-length"], events.len().to_string());
    assert_eq!(seen.body().size_hint().exact(), Some(events.len() as u64));
    assert_eq!(text(seen.into_body()).await, events);
    // What is no stream that can be read.
    let mut others = [response(), response(), response()];
    *others[0].status_mut() = http::StatusCode::BAD_REQUEST;
    others[1].headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    others[2].headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
    for other in others {
        let seen = hidden(other).await;
        assert_eq!(seen.headers()["content-length"], events.len().to_string());
        assert_eq!(text(seen.into_body()).await, events);
    }
}

#[tokio::test]
async fn a_filtered_response_has_no_content_length() {
    let events = [CONTENT, USAGE, DONE].concat();
    let mut response = stream(Script::text(&events));
    response.headers_mut().insert("content-length", events.len().into());
    let seen = hidden(response).await;
    assert!(!seen.headers().contains_key("content-length"));
    assert!(seen.extensions().get::<UsageRequested>().is_none());
    let hint = seen.body().size_hint();
    assert_eq!((hint.lower(), hint.upper()), (0, Some(events.len() as u64)));
    let mut body = seen.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, CONTENT);
    let hint = body.size_hint();
    assert_eq!((hint.lower(), hint.upper()), (0, Some(DONE.len() as u64)));
    assert!(!body.is_end_stream());
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), DONE);
    assert!(body.frame().await.is_none());
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn frames_trailers_and_ends_pass_at_every_split() {
    let events = [": c\n\n", CONTENT, USAGE, DONE].concat();
    let bytes = events.as_bytes();
    for first in 0..=bytes.len() {
        for second in [first, (first + 20).min(bytes.len()), bytes.len()] {
            let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            let seen = hidden(stream(Script::of(pieces).then(None).trailers())).await;
            let body = seen.into_body().collect().await.unwrap();
            assert_eq!(body.trailers(), Some(&trailers()));
            assert_eq!(body.to_bytes(), events.replace(USAGE, ""), "{first} {second}");
        }
    }
}

#[tokio::test]
async fn held_bytes_are_sent_before_an_error_and_at_the_end() {
    for end in 1..USAGE.len() {
        let pieces = [CONTENT.as_bytes(), &USAGE.as_bytes()[..end]];
        let mut body =
            hidden(stream(Script::of(pieces).then(Some(Err("broken"))))).await.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), CONTENT);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), USAGE[..end]);
        assert!(!body.is_end_stream());
        assert_eq!(body.frame().await.unwrap().unwrap_err(), "broken");

        let seen = hidden(stream(Script::of(pieces))).await;
        assert_eq!(text(seen.into_body()).await, [CONTENT, &USAGE[..end]].concat());
    }
}

#[tokio::test]
async fn a_filtered_response_has_no_etag_or_digest() {
    let mut response = stream(Script::text(&[CONTENT, USAGE, DONE].concat()));
    for name in ["etag", "content-digest", "repr-digest", "digest", "content-md5", "x-kept"] {
        response.headers_mut().insert(name, HeaderValue::from_static("x"));
    }
    let seen = hidden(response).await;
    let names: Vec<&str> = seen.headers().keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["content-type", "x-kept"]);
    assert_eq!(text(seen.into_body()).await, [CONTENT, DONE].concat());
}
