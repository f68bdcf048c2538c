//! The built-in upstream of `--demo`: a small OpenAI-compatible API on a free loopback port, so that
//! everything can be tried without an account. It echoes prompts.

mod completion;
mod stream;

use std::{convert::Infallible, io, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use completion::{ChatCompletion, embeddings, text_completion};
use stream::CompletionStream;

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
