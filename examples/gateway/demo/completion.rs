use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

/// The completion of one chat request.
pub(super) struct ChatCompletion {
    id: String,
    created: u64,
    model: String,
    pub(super) text: String,
    pub(super) usage: Value,
}

impl ChatCompletion {
    /// Completes a chat. All members of the request are optional.
    pub(super) fn new(request: &Value) -> Self {
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
    pub(super) fn object(&self) -> Value {
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
    pub(super) fn chunk(&self, choices: Value, usage: Option<&Value>) -> Value {
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
pub(super) fn text_completion(request: &Value) -> Value {
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
pub(super) fn embeddings(request: &Value) -> Value {
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
    request["model"].as_str().unwrap_or(super::MODELS[0]).to_owned()
}

fn next_id(kind: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{kind}-demo-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
