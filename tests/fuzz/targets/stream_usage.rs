//! A changed request requests usage and is the same otherwise; what is left of a response is part of it.
//! Neither depends on the chunks in which they arrive, and a second time changes nothing.
#![no_main]

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use libfuzzer_sys::fuzz_target;
use tower::{Layer, Service, service_fn};
use tower_quota::openai::stream_usage::{BufferedBody, StreamUsageLayer};

/// Where it is cut, whether it is a request or a response, and its bytes.
type Input<'a> = (Vec<u8>, bool, &'a [u8]);

const STREAMED: &[u8] = br#"{"stream":true}"#;

fuzz_target!(|input: Input| {
    let (cuts, is_request, bytes) = input;
    let changed = if is_request { changed_request } else { left };
    let whole = changed(vec![Bytes::copy_from_slice(bytes)]);
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for cut in cuts {
        let (piece, more) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(Bytes::copy_from_slice(piece));
        rest = more;
    }
    pieces.push(Bytes::copy_from_slice(rest));
    assert_eq!(changed(pieces), whole);
    assert_eq!(changed(bytes.iter().map(|byte| Bytes::copy_from_slice(&[*byte])).collect()), whole);
    assert_eq!(changed(vec![whole.clone()]), whole);
    if is_request {
        // At most a `false` was replaced.
        let begin = bytes.iter().zip(&whole).take_while(|(old, new)| old == new).count();
        let end = bytes.iter().rev().zip(whole.iter().rev()).take_while(|(old, new)| old == new);
        assert!(begin + end.count() + "false".len() >= bytes.len());
    } else {
        let mut all = bytes.iter();
        assert!(whole.iter().all(|byte| all.any(|other| other == byte)));
    }
});

fn changed_request(request: Vec<Bytes>) -> Bytes {
    pass(request, Vec::new()).0
}

fn left(response: Vec<Bytes>) -> Bytes {
    pass(vec![Bytes::from_static(STREAMED)], response).1
}

struct Pieces(std::vec::IntoIter<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }
}

/// Returns the request as the inner service gets it, and its response as the client does.
fn pass(request: Vec<Bytes>, response: Vec<Bytes>) -> (Bytes, Bytes) {
    let seen = Arc::new(Mutex::new(None));
    let keep = seen.clone();
    let response = Mutex::new(Some(Pieces(response.into_iter())));
    let response = Arc::new(response);
    let mut service = StreamUsageLayer::new().layer(service_fn(move |request| {
        let request: Request<BufferedBody<Pieces>> = request;
        *keep.lock().unwrap() = Some(request.into_body());
        let response = Response::builder()
            .header("content-type", "text/event-stream")
            .body(response.lock().unwrap().take().unwrap());
        ready(Ok::<_, Infallible>(response.unwrap()))
    }));
    let request = Request::post("/v1/chat/completions")
        .header("content-type", "application/json")
        .body(Pieces(request.into_iter()))
        .unwrap();
    now_or_panic(async {
        let response = service.call(request).await.unwrap().into_body();
        let response = response.collect().await.unwrap().to_bytes();
        let request = seen.lock().unwrap().take().unwrap();
        (request.collect().await.unwrap().to_bytes(), response)
    })
}

/// Returns the output of a future in which nothing waits.
fn now_or_panic<T>(future: impl Future<Output = T>) -> T {
    let Poll::Ready(value) = pin!(future).poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("pending");
    };
    value
}
