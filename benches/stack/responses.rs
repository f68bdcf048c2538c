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
    /// A prompt of 100 KB.
    Prompt,
    /// A JSON response of 16 KB.
    Large,
    /// 200 events, flushed together.
    Burst,
    /// A JSON response for a key that was not used before.
    First,
    /// One event, and nothing until the client leaves.
    Idle,
}

impl Kind {
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
            Self::Prompt => "prompt",
            Self::Large => "large",
            Self::Burst => "burst",
            Self::First => "first",
            Self::Idle => "idle",
        }
    }

    /// Returns the kind that a request line names.
    pub(crate) fn of_request(request_line: &str) -> Option<Self> {
        let name = request_line.split(' ').nth(1)?.split('/').nth(2)?;
        Self::value_variants().iter().copied().find(|kind| kind.name() == name)
    }

    /// Returns the number of events of a streamed response.
    pub(crate) fn events(self) -> Option<usize> {
        match self {
            Self::Stream | Self::Paced => Some(20),
            Self::Burst => Some(200),
            Self::Idle => Some(1),
            Self::Json | Self::Slow | Self::Prompt | Self::Large | Self::First => None,
        }
    }

    /// Returns the bytes of a request with this key: a chat, so that the gateway does all that it does for
    /// chats. Streams request the usage themselves, so that the response is the same through all variants.
    pub(crate) fn request(self, key: &str) -> Vec<u8> {
        let streams = match self.events() {
            Some(_) => r#""stream":true,"stream_options":{"include_usage":true}"#,
            None => r#""stream":false"#,
        };
        let prompt = "Say something of medium length, please.";
        let prompt = match self {
            Self::Prompt => prompt.repeat(100_000 / prompt.len()),
            _ => prompt.to_owned(),
        };
        let body = format!(
            r#"{{"model":"bench-chat",{streams},"messages":[{{"role":"system","content":"You are a helpful assistant."}},{{"role":"user","content":"{prompt}"}}]}}"#
        );
        format!(
            "POST /v1/{}/chat/completions HTTP/1.1\r\nhost: gateway.example\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\naccept: */*\r\nuser-agent: bench\r\n\
             content-length: {}\r\n\r\n{body}",
            self.name(),
            body.len(),
        )
        .into_bytes()
    }

    /// Returns the body of a response that is not streamed.
    pub(crate) fn json(self) -> String {
        json(if self == Self::Large { 350 } else { 6 })
    }

    /// Returns the length of the response's body.
    pub(crate) fn response_length(self) -> usize {
        match self.events() {
            Some(count) => events(count).iter().map(String::len).sum(),
            None => self.json().len(),
        }
    }
}

/// Returns the body of a JSON response with as many sentences of 45 bytes.
fn json(sentences: usize) -> String {
    let content = "The quick brown fox jumps over the lazy dog. ".repeat(sentences);
    format!(
        r#"{{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1790000000,"model":"bench-chat","choices":[{{"index":0,"message":{{"role":"assistant","content":"{content}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":23,"completion_tokens":61,"total_tokens":84}}}}"#
    )
}

/// Returns the events of a stream: pieces of text, the usage, and the end. A single one is a piece.
pub(crate) fn events(count: usize) -> Vec<String> {
    let event = |choices: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\
             \"created\":1790000000,\"model\":\"bench-chat\",\"choices\":[{choices}],\
             \"usage\":{usage}}}\n\n"
        )
    };
    let piece = r#"{"index":0,"delta":{"content":" some words"},"finish_reason":null}"#;
    let usage = r#"{"prompt_tokens":23,"completion_tokens":36,"total_tokens":59}"#;
    let mut events = vec![event(piece, "null"); count.saturating_sub(2).max(1)];
    if count > 1 {
        events.push(event("", usage));
        events.push("data: [DONE]\n\n".to_owned());
    }
    events
}
