use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use serde_json::{Value, json};
use tokio::time::Sleep;

use super::answer::ChatAnswer;

/// The time between two frames.
const PAUSE: Duration = Duration::from_millis(40);

/// Server-sent events, one at a time with a pause after each.
pub(crate) struct StreamedAnswer {
    events: VecDeque<Bytes>,
    pause: Pin<Box<Sleep>>,
}

/// The events of a streamed answer. The usage stands on the last content frame, as DeepSeek sends
/// it, or in a frame of its own if the client has asked for that.
pub(super) fn answer(answer: &ChatAnswer, include_usage: bool) -> StreamedAnswer {
    let delta = |delta: Value, finish: Value| json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
    let role = delta(json!({"role": "assistant", "content": ""}), Value::Null);
    let stop = delta(json!({"content": ""}), json!("stop"));
    let mut chunks = vec![answer.chunk(role, None)];
    for piece in answer.text.split_inclusive(char::is_whitespace) {
        chunks.push(answer.chunk(delta(json!({"content": piece}), Value::Null), None));
    }
    if include_usage {
        chunks.push(answer.chunk(stop, None));
        chunks.push(answer.chunk(json!([]), Some(&answer.usage)));
    } else {
        chunks.push(answer.chunk(stop, Some(&answer.usage)));
    }
    let mut events: VecDeque<Bytes> =
        chunks.iter().map(|chunk| format!("data: {chunk}\n\n").into()).collect();
    events.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
    StreamedAnswer { events, pause: Box::pin(tokio::time::sleep(Duration::ZERO)) }
}

impl Body for StreamedAnswer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.pause.as_mut().poll(cx));
        let event = self.events.pop_front();
        self.pause = Box::pin(tokio::time::sleep(PAUSE));
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }

    fn is_end_stream(&self) -> bool {
        self.events.is_empty()
    }
}
