use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

/// The answer to one chat request.
pub(super) struct ChatAnswer {
    id: String,
    created: u64,
    model: String,
    pub(super) text: String,
    pub(super) usage: Value,
}

impl ChatAnswer {
    /// The answer to this request body, which may lack anything.
    pub(super) fn to(question: &Value) -> Self {
        let messages = question["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let asked = messages
            .iter()
            .rev()
            .find(|message| message["role"] == "user")
            .map(|message| text_of(&message["content"]))
            .unwrap_or_default();
        let text = format!("You said: {asked}\nThis is the demo upstream: it only echoes.");
        let prompt = messages.iter().map(|message| 4 + tokens(&text_of(&message["content"]))).sum();
        Self {
            id: next_id("chatcmpl"),
            created: unix_now(),
            model: model(question),
            usage: usage(prompt, tokens(&text)),
            text,
        }
    }

    /// The answer in one piece.
    pub(super) fn whole(&self) -> Value {
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

    /// One frame of the streamed answer.
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

/// The answer of the old completions API.
pub(super) fn completion(question: &Value) -> Value {
    let prompt = text_of(&question["prompt"]);
    let text = format!(" … you wrote: {prompt}");
    json!({
        "id": next_id("cmpl"),
        "object": "text_completion",
        "created": unix_now(),
        "model": model(question),
        "usage": usage(tokens(&prompt), tokens(&text)),
        "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": "stop"}],
    })
}

/// One short vector for each input.
pub(super) fn embeddings(question: &Value) -> Value {
    let inputs: Vec<String> = match &question["input"] {
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
        "model": model(question),
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

/// A message's content: a string, or parts of which the text counts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str().or(part.as_str())).collect()
        }
        _ => String::new(),
    }
}

/// About what a tokenizer counts: four ASCII characters, or one other.
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

fn model(question: &Value) -> String {
    question["model"].as_str().unwrap_or(super::MODELS[0]).to_owned()
}

fn next_id(kind: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{kind}-demo-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
