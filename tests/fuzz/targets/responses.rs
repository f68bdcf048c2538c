//! What is told of a request and its answer does not depend on the pieces in which they come, and
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
use tower_quota::usage::{RequestBody, Tokens, UsageEvent, UsageRecorderLayer, UsageSink};

/// An answer and where it is cut.
type Input<'a> = (Vec<u8>, &'a [u8]);

fuzz_target!(|input: Input| {
    let (cuts, answer) = input;
    let mut pieces = Vec::new();
    let mut rest = answer;
    for cut in cuts {
        let (piece, more) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(Bytes::copy_from_slice(piece));
        rest = more;
    }
    pieces.push(Bytes::copy_from_slice(rest));
    let whole = told(vec![Bytes::copy_from_slice(answer)], answer, "identity");
    assert_eq!(told(pieces.clone(), answer, "identity"), whole);
    assert_eq!(told(bytes_of(answer), answer, "identity"), whole);
    // As if it were coded.
    for coding in ["gzip", "deflate"] {
        told(pieces.clone(), answer, coding);
    }
    let coded = gzip(answer);
    assert_eq!(told(bytes_of(&coded), &coded, "gzip").of_answer(), whole.of_answer());
});

fn bytes_of(answer: &[u8]) -> Vec<Bytes> {
    answer.iter().map(|byte| Bytes::copy_from_slice(&[*byte])).collect()
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
struct Told {
    asked: Option<String>,
    model: Option<String>,
    tokens: Option<Tokens>,
}

impl Told {
    fn of_answer(&self) -> (&Option<String>, &Option<Tokens>) {
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

fn told(pieces: Vec<Bytes>, answer: &[u8], coding: &'static str) -> Told {
    let events = Events::default();
    let upload = Pieces(pieces.clone().into_iter());
    let pieces = Arc::new(Mutex::new(Some(pieces)));
    let mut service = ServiceBuilder::new().layer(UsageRecorderLayer::new(events.clone())).service(
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
        let response = service.call(Request::post("/").body(upload).unwrap()).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    };
    // Nothing in it waits.
    let Poll::Ready(passed) = pin!(call).poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("pending");
    };
    assert_eq!(passed, answer);
    let mut events = events.0.lock().unwrap();
    assert_eq!(events.len(), 1);
    let event = events.remove(0);
    assert_eq!(event.bytes_in, event.bytes_out);
    Told { asked: event.requested_model, model: event.model, tokens: event.tokens }
}
