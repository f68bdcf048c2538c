//! Scripted bodies, and an inner service that keeps what it gets.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, request::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tower::{Layer, Service, ServiceExt};
use tower_quota::openai::stream_usage::{BufferedBody, FilteredBody, StreamUsageLayer};

pub(crate) const STREAMED: &str = r#"{"model":"m","stream":true}"#;
pub(crate) const CHANGED: &str =
    r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
pub(crate) const CONTENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
pub(crate) const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"total_tokens\":1}}\n\n";
pub(crate) const DONE: &str = "data: [DONE]\n\n";

/// A body that says these things one after another; `None` is a turn in which there is nothing.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) frames: VecDeque<Option<Result<Frame<Bytes>, &'static str>>>,
    pub(crate) sized: bool,
}

impl Script {
    pub(crate) fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let data = |piece: &[u8]| Some(Ok(Frame::data(Bytes::copy_from_slice(piece))));
        Self { frames: pieces.into_iter().map(data).collect(), sized: false }
    }

    pub(crate) fn text(text: &str) -> Self {
        Self { sized: true, ..Self::of([text.as_bytes()]) }
    }

    pub(crate) fn then(mut self, next: Option<Result<Frame<Bytes>, &'static str>>) -> Self {
        self.frames.push_back(next);
        self
    }

    pub(crate) fn trailers(self) -> Self {
        self.then(Some(Ok(Frame::trailers(trailers()))))
    }
}

pub(crate) fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from(1))])
}

impl Body for Script {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        match self.frames.pop_front() {
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(next) => Poll::Ready(next),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let frames = self.frames.iter().flatten().flatten();
        let left = frames.filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        if self.sized { SizeHint::with_exact(left) } else { SizeHint::default() }
    }
}

/// A request as it was passed on.
pub(crate) type Passed = (Parts, BufferedBody<Script>);

/// Says these responses, one after another, keeps the latest request, and panics when it is called without
/// having been readied; its clones are not ready.
#[derive(Default)]
pub(crate) struct Upstream {
    ready: bool,
    responses: Arc<Mutex<VecDeque<Response<Script>>>>,
    pub(crate) seen: Arc<Mutex<Option<Passed>>>,
    pub(crate) calls: Arc<AtomicUsize>,
}

impl Clone for Upstream {
    fn clone(&self) -> Self {
        let (responses, seen) = (self.responses.clone(), self.seen.clone());
        Self { ready: false, responses, seen, calls: self.calls.clone() }
    }
}

impl Service<Request<BufferedBody<Script>>> for Upstream {
    type Response = Response<Script>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<BufferedBody<Script>>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been readied");
        *self.seen.lock().unwrap() = Some(request.into_parts());
        self.calls.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(self.responses.lock().unwrap().pop_front().unwrap_or_default()))
    }
}

impl Upstream {
    pub(crate) fn responding(response: Response<Script>) -> Self {
        Self::default().then(response)
    }

    pub(crate) fn then(self, response: Response<Script>) -> Self {
        self.responses.lock().unwrap().push_back(response);
        self
    }
}

pub(crate) fn chat(body: Script) -> Request<Script> {
    Request::post("/v1/chat/completions")
        .header("content-type", "application/json")
        .body(body)
        .unwrap()
}

pub(crate) fn stream(body: Script) -> Response<Script> {
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

/// The request as the inner service gets it.
pub(crate) async fn passed(request: Request<Script>) -> Passed {
    let upstream = Upstream::default();
    StreamUsageLayer::new().layer(upstream.clone()).oneshot(request).await.unwrap();
    upstream.seen.lock().unwrap().take().unwrap()
}

pub(crate) async fn text(body: impl Body<Data = Bytes, Error: std::fmt::Debug>) -> String {
    String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap()
}

/// The response as the client of a request that was changed gets it.
pub(crate) async fn hidden(
    response: Response<Script>,
) -> Response<FilteredBody<BufferedBody<Script>>> {
    let service = StreamUsageLayer::new().layer(Upstream::responding(response));
    service.oneshot(chat(Script::text(STREAMED))).await.unwrap()
}
