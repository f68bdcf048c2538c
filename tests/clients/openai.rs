//! The real OpenAI clients for Python and Node see what they would see of OpenAI.

use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
    net::TcpListener,
    process::{Child, ChildStdout, Stdio},
    thread,
};

use crate::common::{
    Gateway, GatewayCommand, StubBody, Upstream, chat_json, full, json_response, streaming,
};
use http::{Response, header::CONTENT_TYPE};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug)]
enum Language {
    Python,
    Node,
}

/// A running client and the lines that it prints.
struct Call {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Call {
    fn start(language: Language, gateway: &Gateway, key: &str, call: &str) -> Self {
        let mut command = match language {
            Language::Python => crate::common::python("openai_client.py"),
            Language::Node => crate::common::node("openai_client.cjs"),
        };
        let mut child = command
            .arg(call)
            .env("BASE_URL", gateway.url("/v1"))
            .env("KEY", key)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line, as JSON.
    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("one more line").unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Defines each promise for both clients.
macro_rules! both {
    ($($promise:ident,)*) => {
        mod python {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs Python with openai"]
            async fn $promise() {
                super::$promise(super::Language::Python).await;
            })*
        }
        mod node {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs Node with openai"]
            async fn $promise() {
                super::$promise(super::Language::Node).await;
            })*
        }
    };
}

both! {
    chat_and_models_work,
    a_stream_arrives_chunk_by_chunk,
    a_stream_that_breaks_off_is_an_error,
    a_stream_that_breaks_off_after_its_head_is_an_error,
    a_response_that_breaks_off_is_an_error,
    a_stream_that_falls_silent_is_an_error,
    only_clients_that_request_usage_see_it,
    a_wrong_key_is_an_authentication_error,
    an_exhausted_day_is_a_rate_limit_error_at_once,
    an_upstream_that_rejects_the_sponsor_is_called_once,
    a_limited_sponsor_is_waited_for,
}

async fn chat_and_models_work(language: Language) {
    let upstream = Upstream::start(|request| match request.uri().path() {
        "/v1/models" => json_response(
            json!({"object": "list", "data": [{"id": "deepseek-chat", "object": "model"}]})
                .to_string(),
        ),
        _ => json_response(chat_json().to_string()),
    })
    .await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({})).await;
    let mut chat = Call::start(language, &gateway, &key, "chat");
    assert_eq!(chat.next(), json!({"content": "hello", "tokens": 5}));
    let mut models = Call::start(language, &gateway, &key, "models");
    assert_eq!(models.next(), json!({"models": ["deepseek-chat"]}));
}

fn chunk(content: &str) -> String {
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "deepseek-chat",
        "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": null}],
    });
    format!("data: {chunk}\n\n")
}

/// An upstream whose one response is a stream, fed from outside.
async fn streamed()
-> (Upstream, tokio::sync::mpsc::UnboundedSender<Result<bytes::Bytes, tower::BoxError>>) {
    let (feed, body) = streaming();
    let body = std::sync::Mutex::new(Some(body));
    let upstream = Upstream::start(move |_| {
        let body = body.lock().unwrap().take().expect("one request");
        Response::builder().header(CONTENT_TYPE, "text/event-stream").body(body).unwrap()
    })
    .await;
    (upstream, feed)
}

async fn a_stream_arrives_chunk_by_chunk(language: Language) {
    let (upstream, feed) = streamed().await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({})).await;
    let mut call = Call::start(language, &gateway, &key, "stream");
    for content in ["你", "好", "!"] {
        feed.send(Ok(chunk(content).into())).unwrap();
        assert_eq!(call.next(), json!({"content": content}), "before the next one is sent");
    }
    feed.send(Ok("data: [DONE]\n\n".into())).unwrap();
    drop(feed);
    assert_eq!(call.next(), json!({"done": true}));
}

async fn a_stream_that_breaks_off_is_an_error(language: Language) {
    let (upstream, feed) = streamed().await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({})).await;
    let mut call = Call::start(language, &gateway, &key, "stream");
    feed.send(Ok(chunk("你").into())).unwrap();
    assert_eq!(call.next(), json!({"content": "你"}));
    feed.send(Err("the upstream breaks off".into())).unwrap();
    assert!(call.next()["error"].is_string(), "it never learns of the end");
}

/// An upstream that begins a response of this type and closes the connection.
fn closing_after_the_head(content_type: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let _ = socket.read(&mut [0; 64 * 1024]);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\
                 Transfer-Encoding: chunked\r\n\r\n"
            );
            let _ = socket.write_all(head.as_bytes());
        }
    });
    base_url
}

async fn a_stream_that_breaks_off_after_its_head_is_an_error(language: Language) {
    let gateway = Gateway::before(&closing_after_the_head("text/event-stream"));
    let key = gateway.create_key(json!({})).await;
    let mut call = Call::start(language, &gateway, &key, "stream");
    assert!(call.next()["error"].is_string());
}

async fn a_response_that_breaks_off_is_an_error(language: Language) {
    let gateway = Gateway::before(&closing_after_the_head("application/json"));
    let key = gateway.create_key(json!({})).await;
    let mut call = Call::start(language, &gateway, &key, "chat");
    assert!(call.next()["error"].is_string());
}

async fn a_stream_that_falls_silent_is_an_error(language: Language) {
    let (upstream, feed) = streamed().await;
    let command = GatewayCommand::new().env("UPSTREAM_BASE_URL", upstream.base_url());
    let gateway = command.env("UPSTREAM_IDLE_TIMEOUT", "300ms").start();
    let key = gateway.create_key(json!({})).await;
    let mut call = Call::start(language, &gateway, &key, "stream");
    feed.send(Ok(chunk("你").into())).unwrap();
    assert_eq!(call.next(), json!({"content": "你"}));
    assert!(call.next()["error"].is_string(), "it never learns of the end");
}

/// Two contents, and the usage in an event of its own if it is requested.
fn respond_as_openai(request: http::Request<bytes::Bytes>) -> Response<StubBody> {
    let question: Value = serde_json::from_slice(request.body()).unwrap();
    let usage = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "deepseek-chat",
        "choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
    });
    let mut events = chunk("你") + &chunk("好");
    if question["stream_options"]["include_usage"] == true {
        events += &format!("data: {usage}\n\n");
    }
    let body = full(events + "data: [DONE]\n\n");
    Response::builder().header(CONTENT_TYPE, "text/event-stream").body(body).unwrap()
}

async fn only_clients_that_request_usage_see_it(language: Language) {
    let upstream = Upstream::start(respond_as_openai).await;
    let gateway = GatewayCommand::before(upstream.base_url()).env("STREAM_USAGE", "ask").start();
    let key = gateway.create_key(json!({})).await;
    for (call, sees_usage) in [("chunks", false), ("chunks_with_usage", true)] {
        let mut call = Call::start(language, &gateway, &key, call);
        for _ in 0..2 {
            assert_eq!(call.next(), json!({"choices": 1, "tokens": null}));
        }
        if sees_usage {
            assert_eq!(call.next(), json!({"choices": 0, "tokens": 5}));
        }
        assert_eq!(call.next(), json!({"done": true}));
        let sent: Value = serde_json::from_slice(&upstream.last().body).unwrap();
        assert_eq!(sent["stream_options"], json!({"include_usage": true}));
    }
    assert_eq!(gateway.usage(&key).await["tokens"]["total"], 10, "of both");
}

async fn a_wrong_key_is_an_authentication_error(language: Language) {
    let gateway = Gateway::demo();
    let reported = Call::start(language, &gateway, "trial-nobody", "chat").next();
    assert_eq!(reported["error"], "AuthenticationError");
    assert_eq!((&reported["code"], &reported["attempts"]), (&json!("invalid_api_key"), &json!(1)));
}

async fn an_exhausted_day_is_a_rate_limit_error_at_once(language: Language) {
    let gateway = Gateway::demo();
    let key = gateway.create_key(json!({"daily_limit": 1})).await;
    assert!(Call::start(language, &gateway, &key, "chat").next()["content"].is_string());
    let reported = Call::start(language, &gateway, &key, "chat").next();
    assert_eq!(reported["error"], "RateLimitError");
    assert_eq!(
        (&reported["code"], &reported["attempts"]),
        (&json!("insufficient_quota"), &json!(1))
    );
}

async fn an_upstream_that_rejects_the_sponsor_is_called_once(language: Language) {
    let rejecting = |_| Response::builder().status(402).body(full("no balance")).unwrap();
    let upstream = Upstream::start(rejecting).await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({})).await;
    let reported = Call::start(language, &gateway, &key, "chat").next();
    assert_eq!(
        (&reported["code"], &reported["attempts"]),
        (&json!("upstream_credentials"), &json!(1))
    );
    assert_eq!(upstream.count(), 1);
    assert_eq!(gateway.used(&key).await, 0);
}

async fn a_limited_sponsor_is_waited_for(language: Language) {
    let limited = std::sync::atomic::AtomicBool::new(true);
    let upstream = Upstream::start(move |_| {
        if limited.swap(false, std::sync::atomic::Ordering::SeqCst) {
            let response = Response::builder().status(429).header("retry-after", "1");
            return response.body(full("slow down")).unwrap();
        }
        json_response(chat_json().to_string())
    })
    .await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({})).await;
    let mut call = Call::start(language, &gateway, &key, "chat");
    assert_eq!(call.next(), json!({"content": "hello", "tokens": 5}));
    assert_eq!(upstream.count(), 2);
    assert_eq!(gateway.used(&key).await, 1);
}
