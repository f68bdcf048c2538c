//! What becomes of a request whose upstream does not know `stream_options`.

use std::sync::atomic::Ordering::SeqCst;

use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt};
use tower_quota::openai::stream_usage::{StreamUsageLayer, UsageRequested};

use super::scene::{
    CHANGED, CONTENT, DONE, STREAMED, Script, USAGE, Upstream, chat, stream, text, trailers,
};

const NAMED: &str = r#"{"error":{"message":"Unrecognized request argument: stream_options"}}"#;

fn rejection(status: u16, body: Script) -> Response<Script> {
    let mut rejection = Response::new(body);
    *rejection.status_mut() = StatusCode::from_u16(status).unwrap();
    rejection.headers_mut().insert("x-rejected", HeaderValue::from_static("yes"));
    rejection
}

/// A rejection in these pieces.
fn pieces(size: usize) -> Script {
    Script::of(NAMED.as_bytes().chunks(size)).then(None).trailers()
}

#[tokio::test]
async fn a_rejected_option_is_removed_and_not_sent_again() {
    for status in [400, 404, 422] {
        for size in [1, 20, 1000] {
            let events = [CONTENT, USAGE, DONE].concat();
            let upstream = Upstream::responding(rejection(status, pieces(size)))
                .then(stream(Script::text(&events)))
                .then(stream(Script::text(&events)));
            let layer = StreamUsageLayer::new();
            let mut request = chat(Script::of([STREAMED.as_bytes()]).trailers());
            request.headers_mut().insert("content-length", STREAMED.len().into());
            request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
            request.extensions_mut().insert(7_u8);
            let reported = request.headers().clone();

            let response = layer.layer(upstream.clone()).oneshot(request).await.unwrap();
            assert_eq!(upstream.calls.load(SeqCst), 2);
            assert_eq!(response.status(), 200);
            assert!(!response.headers().contains_key("x-rejected"));
            assert!(response.extensions().get::<UsageRequested>().is_none());
            assert_eq!(
                text(response.into_body()).await,
                events,
                "usage that was not requested stays"
            );
            let (head, body) = upstream.seen.lock().unwrap().take().unwrap();
            assert_eq!((head.headers, head.extensions.get()), (reported, Some(&7_u8)));
            let body = body.collect().await.unwrap();
            assert_eq!(body.trailers(), Some(&trailers()));
            assert_eq!(body.to_bytes(), STREAMED);

            let next = chat(Script::text(STREAMED));
            layer.layer(upstream.clone()).oneshot(next).await.unwrap();
            let (_, body) = upstream.seen.lock().unwrap().take().unwrap();
            assert_eq!((upstream.calls.load(SeqCst), &*text(body).await), (3, STREAMED));
        }
    }
}

#[tokio::test]
async fn other_rejections_pass_unchanged() {
    let long = format!("{}stream_options", " ".repeat(32 * 1024));
    let others = [
        ("{\"error\":{\"message\":\"bad\"}}".to_owned(), 400),
        (NAMED.replace("stream_options", "stream options"), 400),
        (NAMED.to_owned(), 500),
        (NAMED.to_owned(), 200),
        (String::new(), 404),
        (long, 400),
    ];
    for (body, status) in others {
        for size in [7, 5000] {
            let script = Script::of(body.as_bytes().chunks(size)).then(None).trailers();
            let upstream = Upstream::responding(rejection(status, script));
            let request = chat(Script::text(STREAMED));
            let response =
                StreamUsageLayer::new().layer(upstream.clone()).oneshot(request).await.unwrap();
            assert_eq!((response.status().as_u16(), upstream.calls.load(SeqCst)), (status, 1));
            assert_eq!(response.headers()["x-rejected"], "yes");
            let response = response.into_body().collect().await.unwrap();
            assert_eq!(response.trailers(), Some(&trailers()));
            assert_eq!(response.to_bytes(), body);
        }
    }
}

#[tokio::test]
async fn a_truncated_rejection_is_forwarded_as_received() {
    let upstream =
        Upstream::responding(rejection(400, Script::text("{\"err").then(Some(Err("gone")))));
    let request = chat(Script::text(STREAMED));
    let response = StreamUsageLayer::new().layer(upstream).oneshot(request).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "{\"err");
    assert_eq!(body.frame().await.unwrap().unwrap_err(), "gone");
}

#[tokio::test]
async fn an_unrelated_rejection_does_not_affect_other_requests() {
    // Its model is called so.
    let upstream = Upstream::responding(rejection(404, Script::text(NAMED)))
        .then(rejection(404, Script::text(NAMED)))
        .then(stream(Script::text(DONE)));
    let layer = StreamUsageLayer::new();
    let response =
        layer.layer(upstream.clone()).oneshot(chat(Script::text(STREAMED))).await.unwrap();
    assert_eq!((response.status().as_u16(), upstream.calls.load(SeqCst)), (404, 2));
    assert_eq!(text(response.into_body()).await, NAMED);
    layer.layer(upstream.clone()).oneshot(chat(Script::text(STREAMED))).await.unwrap();
    let (_, body) = upstream.seen.lock().unwrap().take().unwrap();
    assert_eq!(text(body).await, CHANGED, "others are still changed");
}

#[tokio::test]
async fn a_client_that_requested_usage_gets_the_rejection() {
    let upstream = Upstream::responding(rejection(400, Script::text(NAMED)));
    let request: Request<Script> = chat(Script::text(CHANGED));
    let response = StreamUsageLayer::new().layer(upstream.clone()).oneshot(request).await.unwrap();
    assert_eq!((response.status().as_u16(), upstream.calls.load(SeqCst)), (400, 1));
    assert_eq!(text(response.into_body()).await, NAMED);
}
