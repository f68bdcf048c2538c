//! An upstream that speaks the three APIs that clients of language models know.

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};

use super::{StubBody, Upstream, chat_json, full, json_response};

/// What every response of [`Upstream::provider`] says.
pub(crate) const PROVIDER_SAYS: &str = "hello";

impl Upstream {
    /// Speaks OpenAI's chat completions and responses, and Anthropic's messages, streamed or not.
    pub(crate) async fn provider() -> Self {
        Self::start(respond).await
    }
}

fn respond(request: Request<Bytes>) -> Response<StubBody> {
    let question: Value = serde_json::from_slice(request.body()).unwrap_or_default();
    let model = question["model"].as_str().unwrap_or("deepseek-chat").to_owned();
    let streams = question["stream"] == true;
    match request.uri().path() {
        "/v1/models" if request.headers().contains_key("anthropic-version") => json(&json!({
            "data": [{"type": "model", "id": "deepseek-chat", "display_name": "deepseek-chat",
                      "created_at": "2025-01-01T00:00:00Z"}],
            "has_more": false, "first_id": "deepseek-chat", "last_id": "deepseek-chat",
        })),
        "/v1/models" => json(&json!({
            "object": "list",
            "data": [
                {"id": "deepseek-chat", "object": "model", "created": 1, "owned_by": "deepseek"},
                {"id": "deepseek-reasoner", "object": "model", "created": 1, "owned_by": "deepseek"},
            ],
        })),
        "/v1/chat/completions" if streams => events(None, &chat_chunks(&model), "data: [DONE]\n\n"),
        "/v1/chat/completions" => json(&chat_json()),
        "/v1/responses" if streams => events(Some("type"), &response_events(&model), ""),
        "/v1/responses" => json(&response(&model, "completed")),
        "/v1/messages" if streams => events(Some("type"), &message_events(&model), ""),
        "/v1/messages" => json(&message(&model, true)),
        "/v1/messages/count_tokens" => json(&json!({"input_tokens": 2})),
        path => {
            let message = format!("no such path: {path}");
            let mut response = json(&json!({"error": {"message": message, "code": null}}));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

fn json(value: &Value) -> Response<StubBody> {
    json_response(value.to_string())
}

/// Server-sent events, named by one of their members or not at all.
fn events(name: Option<&str>, events: &[Value], end: &str) -> Response<StubBody> {
    let mut text = String::new();
    for event in events {
        if let Some(name) = name.and_then(|name| event[name].as_str()) {
            text += &format!("event: {name}\n");
        }
        text += &format!("data: {event}\n\n");
    }
    text += end;
    Response::builder().header(CONTENT_TYPE, "text/event-stream").body(full(text)).unwrap()
}

fn chat_chunks(model: &str) -> [Value; 3] {
    let chunk = |choices: Value, usage: Value| {
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model,
               "choices": choices, "usage": usage})
    };
    let delta = |delta: Value, finish: Value| json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
    [
        chunk(
            delta(json!({"role": "assistant", "content": PROVIDER_SAYS}), Value::Null),
            Value::Null,
        ),
        chunk(delta(json!({}), json!("stop")), Value::Null),
        chunk(json!([]), json!({"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5})),
    ]
}

/// A response of OpenAI's Responses API.
fn response(model: &str, status: &str) -> Value {
    let done = status == "completed";
    json!({
        "id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": model,
        "error": null, "incomplete_details": null, "instructions": null, "metadata": {},
        "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "output": if done { json!([output_item(true)]) } else { json!([]) },
        "usage": if done {
            json!({"input_tokens": 2, "input_tokens_details": {"cached_tokens": 0},
                   "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 0},
                   "total_tokens": 5})
        } else {
            Value::Null
        },
    })
}

fn output_item(done: bool) -> Value {
    let part = json!({"type": "output_text", "text": PROVIDER_SAYS, "annotations": []});
    json!({
        "type": "message", "id": "msg_1", "role": "assistant",
        "status": if done { "completed" } else { "in_progress" },
        "content": if done { json!([part]) } else { json!([]) },
    })
}

fn response_events(model: &str) -> Vec<Value> {
    let text = |kind: &str| json!({"type": kind, "item_id": "msg_1", "output_index": 0, "content_index": 0});
    let with = |mut event: Value, name: &str, value: Value| {
        event[name] = value;
        event
    };
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
    let events = vec![
        json!({"type": "response.created", "response": response(model, "in_progress")}),
        json!({"type": "response.in_progress", "response": response(model, "in_progress")}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": output_item(false)}),
        with(text("response.content_part.added"), "part", part("")),
        with(text("response.output_text.delta"), "delta", json!(PROVIDER_SAYS)),
        with(text("response.output_text.done"), "text", json!(PROVIDER_SAYS)),
        with(text("response.content_part.done"), "part", part(PROVIDER_SAYS)),
        json!({"type": "response.output_item.done", "output_index": 0, "item": output_item(true)}),
        json!({"type": "response.completed", "response": response(model, "completed")}),
    ];
    let numbered = events.into_iter().enumerate();
    numbered.map(|(number, event)| with(event, "sequence_number", json!(number))).collect()
}

/// A message of Anthropic's API.
fn message(model: &str, done: bool) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": model,
        "content": if done { json!([{"type": "text", "text": PROVIDER_SAYS}]) } else { json!([]) },
        "stop_reason": if done { json!("end_turn") } else { Value::Null }, "stop_sequence": null,
        "usage": {"input_tokens": 2, "output_tokens": if done { 3 } else { 0 }},
    })
}

fn message_events(model: &str) -> [Value; 6] {
    [
        json!({"type": "message_start", "message": message(model, false)}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0,
               "delta": {"type": "text_delta", "text": PROVIDER_SAYS}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
               "usage": {"output_tokens": 3}}),
        json!({"type": "message_stop"}),
    ]
}
