//! Many requests over few HTTP/2 connections.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower_quota::{error::UpstreamFault, proxy::Timeouts};

use super::{
    common::DEADLINE,
    gateway::{Proxy, proxy},
    message::in_time,
    upstream::Upstream,
};

fn post(number: usize) -> Request<Full<Bytes>> {
    Request::post(format!("/v1/{number}")).header("host", "gateway").body("{}".into()).unwrap()
}

#[tokio::test]
async fn more_requests_than_a_connection_takes_open_another_one() {
    let mut upstream = Upstream::holding_at_most(64).await;
    let proxy: Proxy<Full<Bytes>> = proxy(&upstream.url);
    let mut requests = JoinSet::new();
    for number in 0..200 {
        requests.spawn(proxy.clone().oneshot(post(number)));
    }
    for _ in 0..200 {
        upstream.seen().await;
    }
    // However many there are.
    for number in 200..2_200 {
        requests.spawn(proxy.clone().oneshot(post(number)));
        upstream.seen().await;
    }
}

#[tokio::test]
async fn a_request_that_waits_for_a_stream_was_never_sent() {
    let mut upstream = Upstream::holding_at_most(1).await;
    let patient: Proxy<Full<Bytes>> = proxy(&upstream.url);
    let hasty = patient.clone().timeouts(Timeouts::new().head(Duration::from_millis(300)));
    let mut held = JoinSet::new();
    held.spawn(patient.oneshot(post(1)));
    upstream.seen().await;
    let response = in_time(DEADLINE, hasty.oneshot(post(2))).await.unwrap();
    assert_eq!(response.status(), 502);
    assert_eq!(response.extensions().get(), Some(&UpstreamFault::Unreached));
    upstream.saw_no_more();
}
