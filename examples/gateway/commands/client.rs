//! The HTTP client of the commands.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{client::legacy, rt::TokioExecutor};
use tower::BoxError;

use crate::connector::UpstreamConnector;

/// A response that was read whole.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Time from the start of connecting to the head of the response.
    pub(super) time_to_head: Duration,
}

/// Sends one request and reads a response of at most `max_bytes`.
pub(super) async fn send(
    request: Request<Empty<Bytes>>,
    connector: UpstreamConnector,
    max_bytes: usize,
) -> Result<Response, BoxError> {
    let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let start = Instant::now();
    let (head, body) = client.request(request).await?.into_parts();
    let time_to_head = start.elapsed();
    let body = Limited::new(body, max_bytes).collect().await?.to_bytes();
    Ok(Response { status: head.status, headers: head.headers, body, time_to_head })
}

/// Returns an error and its sources.
pub(super) fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
