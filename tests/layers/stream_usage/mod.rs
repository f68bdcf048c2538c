//! `StreamUsageLayer` alone: which requests it changes, and how bodies pass through it.

mod rejections;
mod requests;
mod responses;
mod scene;

use std::sync::{Arc, Mutex};

use http::Response;
use tower::{Layer, ServiceExt};
use tower_quota::openai::stream_usage::{BufferedBody, StreamUsageLayer, UsageRequested};

use self::scene::{CONTENT, DONE, STREAMED, Script, USAGE, Upstream, chat, stream, text};

#[tokio::test]
async fn both_layers_work_with_another_layer_between() {
    let (hide, include) = StreamUsageLayer::new().split();
    let events = [CONTENT, USAGE, DONE].concat();
    let between = Arc::new(Mutex::new(None));
    let seen_between = between.clone();
    let inner = include.layer(Upstream::responding(stream(Script::text(&events))));
    let inner = inner.map_response(move |response: Response<BufferedBody<Script>>| {
        let marker = response.extensions().get::<UsageRequested>().copied();
        *seen_between.lock().unwrap() = marker;
        response
    });
    let seen = hide.layer(inner).oneshot(chat(Script::text(STREAMED))).await.unwrap();
    assert_eq!(text(seen.into_body()).await, [CONTENT, DONE].concat());
    assert_eq!(*between.lock().unwrap(), Some(UsageRequested));
}

#[test]
fn futures_and_bodies_are_send() {
    fn sent<T: Send>(_: T) {}
    let service = StreamUsageLayer::new().layer(Upstream::default());
    sent(service.oneshot(chat(Script::text(STREAMED))));
}
