//! The upstream's responses, which the load knows so that it can check them.

use std::time::Duration;

use clap::ValueEnum;

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A JSON response without delay.
    Json,
    /// 20 events without delay, each flushed separately.
    Stream,
    /// 20 events, one every 2 ms.
    Paced,
    /// A JSON response after 20 ms.
    Slow,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Json, Self::Stream, Self::Paced, Self::Slow];
    /// Delay of a [`Kind::Slow`] response.
    pub(crate) const DELAY: Duration = Duration::from_millis(20);
    /// Pause before each event of a [`Kind::Paced`] response.
    pub(crate) const PACE: Duration = Duration::from_millis(2);

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Stream => "stream",
            Self::Paced => "paced",
            Self::Slow => "slow",
        }
    }

    /// Returns the kind that a request line names.
    pub(crate) fn of_request(request_line: &str) -> Option<Self> {
        let path = request_line.split(' ').nth(1)?;
        Self::ALL.into_iter().find(|kind| path.strip_prefix("/v1/") == Some(kind.name()))
    }

    /// Returns the bytes of a request with this key.
    pub(crate) fn request(self, key: &str) -> Vec<u8> {
        let streams = matches!(self, Self::Stream | Self::Paced);
        let body = format!(
            r#"{{"model":"bench-chat","stream":{streams},"messages":[{{"role":"system","content":"You are a helpful assistant."}},{{"role":"user","content":"Say something of medium length, please."}}]}}"#
        );
        format!(
            "POST /v1/{} HTTP/1.1\r\nhost: gateway.example\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\naccept: */*\r\nuser-agent: bench\r\n\
             content-length: {}\r\n\r\n{body}",
            self.name(),
            body.len(),
        )
        .into_bytes()
    }

    /// Returns the length of the response's body.
    pub(crate) fn response_length(self) -> usize {
        match self {
            Self::Json | Self::Slow => json().len(),
            Self::Stream | Self::Paced => events().iter().map(String::len).sum(),
        }
    }
}

/// Returns the body of a JSON response of about 600 bytes.
pub(crate) fn json() -> String {
    let content = "The quick brown fox jumps over the lazy dog. ".repeat(6);
    format!(
        r#"{{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1790000000,"model":"bench-chat","choices":[{{"index":0,"message":{{"role":"assistant","content":"{content}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":23,"completion_tokens":61,"total_tokens":84}}}}"#
    )
}

/// Returns the events of a stream: 18 pieces of text, the usage, and the end.
pub(crate) fn events() -> Vec<String> {
    let event = |choices: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\
             \"created\":1790000000,\"model\":\"bench-chat\",\"choices\":[{choices}],\
             \"usage\":{usage}}}\n\n"
        )
    };
    let piece = r#"{"index":0,"delta":{"content":" some words"},"finish_reason":null}"#;
    let usage = r#"{"prompt_tokens":23,"completion_tokens":36,"total_tokens":59}"#;
    let mut events = vec![event(piece, "null"); 18];
    events.push(event("", usage));
    events.push("data: [DONE]\n\n".to_owned());
    events
}
