//! A streamed chat completion.

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

use super::completion::ChatCompletion;

/// Time between two events.
const EVENT_INTERVAL: Duration = Duration::from_millis(40);

/// A body of server-sent events, sent at an interval.
pub(crate) struct CompletionStream {
    events: VecDeque<Bytes>,
    pause: Pin<Box<Sleep>>,
}

impl CompletionStream {
    /// Splits a completion into events. The usage is in the last content chunk, as DeepSeek sends it, or
    /// in a chunk of its own with `include_usage`.
    pub(super) fn new(completion: &ChatCompletion, include_usage: bool) -> Self {
        let delta = |delta: Value, finish: Value| json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        let role = delta(json!({"role": "assistant", "content": ""}), Value::Null);
        let stop = delta(json!({"content": ""}), json!("stop"));
        let mut chunks = vec![completion.chunk(role, None)];
        for piece in completion.text.split_inclusive(char::is_whitespace) {
            chunks.push(completion.chunk(delta(json!({"content": piece}), Value::Null), None));
        }
        if include_usage {
            chunks.push(completion.chunk(stop, None));
            chunks.push(completion.chunk(json!([]), Some(&completion.usage)));
        } else {
            chunks.push(completion.chunk(stop, Some(&completion.usage)));
        }
        let mut events: VecDeque<Bytes> =
            chunks.iter().map(|chunk| format!("data: {chunk}\n\n").into()).collect();
        events.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
        Self { events, pause: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }
}

impl Body for CompletionStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.pause.as_mut().poll(cx));
        let event = self.events.pop_front();
        self.pause = Box::pin(tokio::time::sleep(EVENT_INTERVAL));
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }

    fn is_end_stream(&self) -> bool {
        self.events.is_empty()
    }
}
