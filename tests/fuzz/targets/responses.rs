//! What is read of a request and its response does not depend on the chunks in which they arrive, and
//! they pass unchanged.
#![no_main]

use std::{
    convert::Infallible,
    io::Write,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Request, Response, header::CONTENT_ENCODING};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use libfuzzer_sys::fuzz_target;
use tower::{Service, ServiceBuilder, service_fn};
use tower_quota::{
    openai::OpenAiUsage,
    store::{Tokens, UsageEvent, UsageSink},
    usage::{RequestBody, UsageRecorderLayer},
};

/// A response and where it is cut.
type Input<'a> = (Vec<u8>, &'a [u8]);

fuzz_target!(|input: Input| {
    let (cuts, response_body) = input;
    let mut pieces = Vec::new();
    let mut rest = response_body;
    for cut in cuts {
        let (piece, more) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(Bytes::copy_from_slice(piece));
        rest = more;
    }
    pieces.push(Bytes::copy_from_slice(rest));
    let whole = read(vec![Bytes::copy_from_slice(response_body)], response_body, "identity");
    assert_eq!(read(pieces.clone(), response_body, "identity"), whole);
    assert_eq!(read(bytes_of(response_body), response_body, "identity"), whole);
    // As if it were coded.
    for coding in ["gzip", "deflate"] {
        read(pieces.clone(), response_body, coding);
    }
    let coded = gzip(response_body);
    assert_eq!(read(bytes_of(&coded), &coded, "gzip").of_response(), whole.of_response());
});

fn bytes_of(response_body: &[u8]) -> Vec<Bytes> {
    response_body.iter().map(|byte| Bytes::copy_from_slice(&[*byte])).collect()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut coded = GzEncoder::new(Vec::new(), Compression::fast());
    coded.write_all(text).unwrap();
    coded.finish().unwrap()
}

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<UsageEvent>>>);

impl UsageSink for Events {
    fn record(&self, event: UsageEvent) {
        self.0.lock().unwrap().push(event);
    }
}

#[derive(Debug, PartialEq)]
struct Seen {
    requested: Option<String>,
    model: Option<String>,
    tokens: Option<Tokens>,
}

impl Seen {
    fn of_response(&self) -> (&Option<String>, &Option<Tokens>) {
        (&self.model, &self.tokens)
    }
}

struct Pieces(std::vec::IntoIter<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }
}

fn read(pieces: Vec<Bytes>, response_body: &[u8], coding: &'static str) -> Seen {
    let events = Events::default();
    let request_body = Pieces(pieces.clone().into_iter());
    let pieces = Arc::new(Mutex::new(Some(pieces)));
    let mut service = ServiceBuilder::new().layer(UsageRecorderLayer::new(events.clone()).format(OpenAiUsage).watch_requests()).service(
        service_fn(move |request: Request<RequestBody<Pieces>>| {
            let pieces = pieces.lock().unwrap().take().unwrap();
            async move {
                request.into_body().collect().await?;
                let mut response = Response::new(Pieces(pieces.into_iter()));
                response
                    .headers_mut()
                    .insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
                Ok::<_, Infallible>(response)
            }
        }),
    );
    let call = async {
        let response = service.call(Request::post("/").body(request_body).unwrap()).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    };
    // Nothing in it waits.
    let Poll::Ready(passed) = pin!(call).poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("pending");
    };
    assert_eq!(passed, response_body);
    let mut events = events.0.lock().unwrap();
    assert_eq!(events.len(), 1);
    let event = events.remove(0);
    assert_eq!(event.bytes_in, event.bytes_out);
    Seen { requested: event.requested_model, model: event.model, tokens: event.tokens }
}
