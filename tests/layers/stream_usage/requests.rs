//! Which requests are changed, and how their bodies pass.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{HeaderValue, Request, Response, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use tower::{Layer, ServiceExt, service_fn};
use tower_quota::openai::stream_usage::{BufferedBody, StreamUsageLayer};

use super::scene::{CHANGED, STREAMED, Script, Upstream, chat, passed, text, trailers};

#[tokio::test]
async fn a_body_in_any_pieces_is_changed_once_it_is_whole() {
    for first in 0..=STREAMED.len() {
        for second in first..=STREAMED.len() {
            let cut = STREAMED.as_bytes();
            let body = Script::of([&cut[..first], &cut[first..second]]);
            let body =
                body.then(None).then(Script::of([&cut[second..]]).frames.pop_front().unwrap());
            let (_, body) = passed(chat(body.trailers())).await;
            assert_eq!(body.size_hint().exact(), None, "its length stays unknown");
            let body = body.collect().await.unwrap();
            assert_eq!(body.trailers(), Some(&trailers()));
            assert_eq!(body.to_bytes(), CHANGED);
        }
    }
}

#[tokio::test]
async fn the_head_of_a_changed_request_fits_its_body() {
    for (given, expected) in [
        (STREAMED, CHANGED),
        (
            r#"{"stream":true,"stream_options":{"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
    ] {
        let mut request = chat(Script::text(given));
        request.headers_mut().insert("content-length", given.len().into());
        request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip, br"));
        let (head, body) = passed(request).await;
        assert_eq!(head.headers["content-length"], expected.len().to_string());
        assert_eq!(head.headers["accept-encoding"], "identity");
        assert_eq!(body.size_hint().exact(), Some(expected.len() as u64));
        assert_eq!(text(body).await, expected);
    }
    let (head, _) = passed(chat(Script::of([STREAMED.as_bytes()]))).await;
    assert!(!head.headers.contains_key("content-length"), "there was none");
}

#[tokio::test]
async fn other_requests_pass_untouched() {
    let build = || Request::post("/v1/chat/completions").header("content-type", "application/json");
    for (request, body) in [
        (Request::put("/v1/chat/completions").header("content-type", "application/json"), STREAMED),
        (Request::post("/v1/completions").header("content-type", "application/json"), STREAMED),
        (
            Request::post("/v1/chat/completions/1").header("content-type", "application/json"),
            STREAMED,
        ),
        (build().header("content-encoding", "gzip"), STREAMED),
        (build().header("content-encoding", "identity").header("content-encoding", "br"), STREAMED),
        (build(), CHANGED),
        (build(), r#"{"stream":false}"#),
        (build(), "{\"stream\":true"),
        (build(), ""),
        (build(), "stream=true&model=m"),
    ] {
        let request =
            request.header("content-length", body.len()).header("accept-encoding", "gzip");
        let request = request.body(Script::text(body)).unwrap();
        let reported = request.headers().clone();
        let (head, passed) = passed(request).await;
        assert_eq!(head.headers, reported);
        assert_eq!(passed.size_hint().exact(), Some(body.len() as u64));
        assert_eq!(text(passed).await, body);
    }
}

#[tokio::test]
async fn json_is_changed_whatever_its_content_type_says() {
    for kind in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/x-www-form-urlencoded",
        "text/plain",
        "",
    ] {
        let mut request = chat(Script::text(STREAMED));
        request.headers_mut().remove("content-type");
        if !kind.is_empty() {
            request.headers_mut().insert("content-type", HeaderValue::from_static(kind));
        }
        request.headers_mut().insert("content-encoding", HeaderValue::from_static("identity"));
        let (head, body) = passed(request).await;
        assert_eq!(
            head.headers.get("content-type").map_or("", |kind| kind.to_str().unwrap()),
            kind
        );
        assert_eq!(text(body).await, CHANGED, "{kind}");
    }
}

#[tokio::test]
async fn a_long_body_is_forwarded_as_it_arrives() {
    let padded = |length: usize| format!("{STREAMED}{}", " ".repeat(length - STREAMED.len()));
    for (length, is_changed) in [(64, true), (65, false), (200, false)] {
        for size in [1, 10, 64, 200] {
            for sized in [true, false] {
                let given = padded(length);
                let body = Script { sized, ..Script::of(given.as_bytes().chunks(size)) };
                let upstream = Upstream::default();
                let layer = StreamUsageLayer::new().max_body(64);
                let request = chat(body.then(None).trailers());
                layer.layer(upstream.clone()).oneshot(request).await.unwrap();
                let (_, body) = upstream.seen.lock().unwrap().take().unwrap();
                if sized {
                    let longer = if is_changed { CHANGED.len() - STREAMED.len() } else { 0 };
                    assert_eq!(body.size_hint().exact(), Some((length + longer) as u64));
                }
                let body = body.collect().await.unwrap();
                assert_eq!(body.trailers(), Some(&trailers()));
                let expected =
                    if is_changed { given.replace(STREAMED, CHANGED) } else { given.clone() };
                assert_eq!(body.to_bytes(), expected, "{length} in {size}");
            }
        }
    }
}

#[tokio::test]
async fn a_truncated_request_body_is_forwarded_as_received() {
    let body = Script::of([STREAMED.as_bytes(), b" "]).then(Some(Err("gone")));
    let (_, mut body) = passed(chat(body)).await;
    let read = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(read, STREAMED.to_owned() + " ");
    assert!(!body.is_end_stream());
    assert_eq!(body.frame().await.unwrap().unwrap_err(), "gone");
}

#[tokio::test]
async fn a_failing_body_has_no_exact_length() {
    // `Limited` says that nothing is left once it has failed.
    let body = Limited::new(Script::of([STREAMED.as_bytes(), b"x"]), STREAMED.len());
    let seen = Arc::new(Mutex::new(None));
    let upstream = service_fn(|request: Request<BufferedBody<Limited<Script>>>| {
        *seen.lock().unwrap() = Some(request.into_body());
        std::future::ready(Ok::<_, Infallible>(Response::new(Script::default())))
    });
    let request = chat(Script::default()).map(|_| body);
    StreamUsageLayer::new().layer(upstream).oneshot(request).await.unwrap();
    let mut body = seen.lock().unwrap().take().unwrap();
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (None, false));
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), STREAMED);
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (None, false));
    assert!(body.frame().await.unwrap().is_err());
}

#[tokio::test]
async fn custom_filter_selects_requests() {
    let layer = StreamUsageLayer::new().applies_to(|head: &Parts| head.uri.path() == "/ask");
    for (path, expected) in [("/ask", CHANGED), ("/v1/chat/completions", STREAMED)] {
        let upstream = Upstream::default();
        let mut request = chat(Script::text(STREAMED));
        *request.uri_mut() = path.parse().unwrap();
        layer.layer(upstream.clone()).oneshot(request).await.unwrap();
        let (_, body) = upstream.seen.lock().unwrap().take().unwrap();
        assert_eq!(text(body).await, expected);
    }
}

#[tokio::test]
async fn requests_with_a_digest_or_signature_are_unchanged() {
    for name in
        ["content-digest", "repr-digest", "digest", "content-md5", "signature", "signature-input"]
    {
        let mut request = chat(Script::text(STREAMED));
        request.headers_mut().insert(name, HeaderValue::from_static("x"));
        let reported = request.headers().clone();
        let (head, body) = passed(request).await;
        assert_eq!(head.headers, reported);
        assert_eq!(text(body).await, STREAMED, "{name}");
    }
}

/// What is held of all bodies together has a limit; a body beyond it passes untouched, whole.
#[tokio::test]
async fn a_body_beyond_the_buffer_limit_is_unchanged() {
    let layer = StreamUsageLayer::new().max_buffered(2 * STREAMED.len());
    let upstream = Upstream::default();
    let service = layer.layer(upstream.clone());
    let next = async || {
        service.clone().oneshot(chat(Script::text(STREAMED))).await.unwrap();
        upstream.seen.lock().unwrap().take().unwrap().1
    };
    let (first, second) = (next().await, next().await);
    let (whole, end) = STREAMED.split_at(STREAMED.len() - 1);
    let beyond = chat(Script::of([whole.as_bytes(), end.as_bytes()]).trailers());
    service.clone().oneshot(beyond).await.unwrap();
    let (_, third) = upstream.seen.lock().unwrap().take().unwrap();
    let third = third.collect().await.unwrap();
    assert_eq!(third.trailers(), Some(&trailers()));
    assert_eq!(third.to_bytes(), STREAMED);
    // A forwarded body keeps its room in the buffer until its bytes are dropped.
    let held = first.collect().await.unwrap().to_bytes();
    assert_eq!(held, CHANGED);
    drop(held);
    assert_eq!(text(second).await, CHANGED);
    assert_eq!(text(next().await).await, CHANGED);
}
