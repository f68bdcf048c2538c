//! The built-in upstream of `--demo`: a small OpenAI-compatible API on a free loopback port, so that
//! everything can be tried without an account. It echoes prompts.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::Sleep};

/// The models that `GET /v1/models` lists.
const MODELS: [&str; 2] = ["deepseek-chat", "deepseek-reasoner"];

type DemoBody = Either<Full<Bytes>, CompletionStream>;

/// Starts the upstream and returns its address.
#[expect(clippy::disallowed_methods, reason = "one task for the server")]
pub(crate) async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener));
    Ok(address)
}

#[expect(clippy::disallowed_methods, reason = "one task per connection")]
async fn serve(listener: TcpListener) {
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let connection =
            builder.serve_connection(TokioIo::new(socket), service_fn(respond)).into_owned();
        tokio::spawn(connection);
    }
}

async fn respond(request: Request<Incoming>) -> Result<Response<DemoBody>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Ok(error(StatusCode::BAD_REQUEST, "the body is incomplete"));
    };
    let request = serde_json::from_slice::<Value>(&body.to_bytes());
    Ok(match (head.method, head.uri.path(), request) {
        (Method::GET, "/v1/models", _) => models(),
        (Method::POST, "/v1/chat/completions", Ok(request)) => chat(&request),
        (Method::POST, "/v1/completions", Ok(request)) => json(&text_completion(&request)),
        (Method::POST, "/v1/embeddings", Ok(request)) => json(&embeddings(&request)),
        (Method::POST, "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings", Err(_)) => {
            error(StatusCode::BAD_REQUEST, "the body is not JSON")
        }
        (method, path, _) => {
            error(StatusCode::NOT_FOUND, &format!("Unknown request: {method} {path}"))
        }
    })
}

fn models() -> Response<DemoBody> {
    let data: Vec<Value> = MODELS
        .iter()
        .map(|id| json!({"id": id, "object": "model", "owned_by": "deepseek"}))
        .collect();
    json(&json!({"object": "list", "data": data}))
}

fn chat(request: &Value) -> Response<DemoBody> {
    let completion = ChatCompletion::new(request);
    if request["stream"] != Value::Bool(true) {
        return json(&completion.object());
    }
    let include_usage = request["stream_options"]["include_usage"] == Value::Bool(true);
    let body = CompletionStream::new(&completion, include_usage);
    let mut response = Response::new(Either::Right(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn json(value: &Value) -> Response<DemoBody> {
    let mut response = Response::new(Either::Left(Full::from(value.to_string())));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn error(status: StatusCode, message: &str) -> Response<DemoBody> {
    let error = json!({"error": {
        "message": message, "type": "invalid_request_error", "param": null, "code": null,
    }});
    let mut response = json(&error);
    *response.status_mut() = status;
    response
}

/// The completion of one chat request.
struct ChatCompletion {
    id: String,
    created: u64,
    model: String,
    text: String,
    usage: Value,
}

impl ChatCompletion {
    /// Completes a chat. All members of the request are optional.
    fn new(request: &Value) -> Self {
        let messages = request["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let prompt = messages
            .iter()
            .rev()
            .find(|message| message["role"] == "user")
            .map(|message| text_of(&message["content"]))
            .unwrap_or_default();
        let text = format!("You said: {prompt}\nThis is the demo upstream: it only echoes.");
        let prompt_tokens =
            messages.iter().map(|message| 4 + tokens(&text_of(&message["content"]))).sum();
        Self {
            id: next_id("chatcmpl"),
            created: unix_now(),
            model: model(request),
            usage: usage(prompt_tokens, tokens(&text)),
            text,
        }
    }

    /// Returns the completion as one object.
    fn object(&self) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": self.text},
                "logprobs": null,
                "finish_reason": "stop",
            }],
            "usage": self.usage,
        })
    }

    /// Returns one chunk of the streamed completion.
    fn chunk(&self, choices: Value, usage: Option<&Value>) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "usage": usage,
        })
    }
}

/// Returns the completion of the legacy completions API.
fn text_completion(request: &Value) -> Value {
    let prompt = text_of(&request["prompt"]);
    let text = format!(" … you wrote: {prompt}");
    json!({
        "id": next_id("cmpl"),
        "object": "text_completion",
        "created": unix_now(),
        "model": model(request),
        "usage": usage(tokens(&prompt), tokens(&text)),
        "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": "stop"}],
    })
}

/// Returns one short vector for each input.
fn embeddings(request: &Value) -> Value {
    let inputs: Vec<String> = match &request["input"] {
        Value::Array(inputs) => inputs.iter().map(text_of).collect(),
        input => vec![text_of(input)],
    };
    let prompt: u64 = inputs.iter().map(|input| tokens(input)).sum();
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            json!({"object": "embedding", "index": index, "embedding": vector(input)})
        })
        .collect();
    json!({
        "object": "list",
        "data": data,
        "model": model(request),
        "usage": {"prompt_tokens": prompt, "total_tokens": prompt},
    })
}

fn vector(input: &str) -> Vec<f64> {
    let mut vector = vec![0.0; 8];
    for (at, byte) in input.bytes().enumerate() {
        vector[at % 8] += f64::from(byte) / 255.0;
    }
    vector
}

/// Returns the text of a message's content, which is a string or a list of parts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str().or(part.as_str())).collect()
        }
        _ => String::new(),
    }
}

/// Approximates the number of tokens: one per four ASCII characters, one per other character.
fn tokens(text: &str) -> u64 {
    let (ascii, other) = text.chars().fold((0u64, 0u64), |(ascii, other), letter| {
        if letter.is_ascii() { (ascii + 1, other) } else { (ascii, other + 1) }
    });
    ascii.div_ceil(4) + other
}

fn usage(prompt: u64, completion: u64) -> Value {
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    })
}

fn model(request: &Value) -> String {
    request["model"].as_str().unwrap_or(MODELS[0]).to_owned()
}

fn next_id(kind: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{kind}-demo-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Time between two events.
const EVENT_INTERVAL: Duration = Duration::from_millis(40);

/// A body of server-sent events, sent at an interval.
struct CompletionStream {
    events: VecDeque<Bytes>,
    pause: Pin<Box<Sleep>>,
}

impl CompletionStream {
    /// Splits a completion into events. The usage is in the last content chunk, as DeepSeek sends it, or
    /// in a chunk of its own with `include_usage`.
    fn new(completion: &ChatCompletion, include_usage: bool) -> Self {
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
