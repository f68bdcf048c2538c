//! The tokens of every kind of response that upstreams give are in the ledger, and the response is as the
//! upstream has sent it.

use std::io::Write;

use crate::common::{Client, Gateway, GatewayCommand, StubBody, Upstream, full};
use bytes::Bytes;
use flate2::{Compression, write};
use http::{Request, Response, header};
use serde_json::{Value, json};

/// The response of an upstream, and the tokens that are expected of it.
struct Row {
    what: &'static str,
    kind: &'static str,
    body: &'static str,
    /// Prompt, completion, total, cached.
    tokens: (u64, u64, u64, Option<u64>),
}

const JSON: &str = "application/json";
const STREAM: &str = "text/event-stream";

const ROWS: [Row; 8] = [
    Row {
        what: "Kimi's stream",
        kind: STREAM,
        body: "data: {\"model\":\"kimi-k2\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n\
            data: {\"model\":\"kimi-k2\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\
            \"usage\":{\"prompt_tokens\":19,\"completion_tokens\":13,\"total_tokens\":32}}]}\n\n\
            data: [DONE]\n\n",
        tokens: (19, 13, 32, None),
    },
    Row {
        what: "Groq's stream",
        kind: STREAM,
        body: "data: {\"model\":\"llama\",\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"x_groq\":{\"id\":\"r\"}}\n\n\
            data: {\"model\":\"llama\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"x_groq\":{\
            \"id\":\"r\",\"usage\":{\"queue_time\":0.1,\"prompt_tokens\":18,\"completion_tokens\":2,\
            \"total_tokens\":20}}}\n\ndata: [DONE]\n\n",
        tokens: (18, 2, 20, None),
    },
    Row {
        what: "Anthropic's JSON",
        kind: JSON,
        body: r#"{"type":"message","model":"claude","content":[{"type":"text","text":"a"}],
            "usage":{"input_tokens":25,"cache_creation_input_tokens":50,
            "cache_read_input_tokens":1000,"output_tokens":7,"service_tier":"standard"}}"#,
        tokens: (1075, 7, 1082, Some(1000)),
    },
    Row {
        what: "Anthropic's stream with zeros at its end",
        kind: STREAM,
        body: "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude\",\
            \"usage\":{\"input_tokens\":25,\"cache_creation_input_tokens\":50,\
            \"cache_read_input_tokens\":1000,\"output_tokens\":1}}}\n\n\
            event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\
            \"usage\":{\"input_tokens\":0,\"cache_creation_input_tokens\":0,\
            \"cache_read_input_tokens\":0,\"output_tokens\":15}}\n\n\
            event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        tokens: (1075, 15, 1090, Some(1000)),
    },
    Row {
        what: "numbers with a point",
        kind: JSON,
        body: r#"{"model":"m","usage":{"prompt_tokens":11.0,"completion_tokens":7.0,"total_tokens":18.0}}"#,
        tokens: (11, 7, 18, None),
    },
    Row {
        what: "a total of 0",
        kind: JSON,
        body: r#"{"model":"m","usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":0}}"#,
        tokens: (11, 7, 18, None),
    },
    Row {
        what: "a response of /v1/responses",
        kind: JSON,
        body: r#"{"object":"response","model":"m","usage":{"input_tokens":36,
            "input_tokens_details":{"cached_tokens":30},"output_tokens":87,
            "output_tokens_details":{"reasoning_tokens":0},"total_tokens":123}}"#,
        tokens: (36, 87, 123, Some(30)),
    },
    Row {
        what: "a chat's stream",
        kind: STREAM,
        body: "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n\
            data: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\
            \"completion_tokens\":7,\"total_tokens\":18}}\n\ndata: [DONE]\n\n",
        tokens: (11, 7, 18, None),
    },
];

fn coded(coding: &str, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let level = Compression::default();
    match coding {
        "gzip" => write::GzEncoder::new(&mut out, level).write_all(text).unwrap(),
        "deflate" => write::ZlibEncoder::new(&mut out, level).write_all(text).unwrap(),
        _ => out.extend_from_slice(text),
    }
    out
}

/// Responds with the row and in the coding that the request's headers name.
fn respond(request: Request<Bytes>) -> Response<StubBody> {
    let header = |name| request.headers()[name].to_str().unwrap();
    let row = &ROWS[header("x-row").parse::<usize>().unwrap()];
    let coding = header("x-coding");
    let mut response = Response::new(full(coded(coding, row.body.as_bytes())));
    response.headers_mut().insert(header::CONTENT_TYPE, row.kind.parse().unwrap());
    if coding != "none" {
        response.headers_mut().insert(header::CONTENT_ENCODING, coding.parse().unwrap());
    }
    response
}

/// Requests this row with a new key; returns the usage report of its holder.
async fn report_after(gateway: &Gateway, row: usize, coding: &str) -> Value {
    let key = gateway.create_key(json!({})).await;
    let authorization = format!("Bearer {key}");
    let number = row.to_string();
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
        ("accept-encoding", "gzip, deflate"),
        ("x-row", &number),
        ("x-coding", coding),
    ];
    let client = Client::http1();
    let url = gateway.url("/v1/responses");
    let response = client.send(http::Method::POST, &url, &headers, r#"{"model":"m"}"#).await;
    let expected = coded(coding, ROWS[row].body.as_bytes());
    assert_eq!(response.body, expected, "{}: as the upstream has sent it", ROWS[row].what);
    gateway.usage(&key).await
}

async fn assert_reported(gateway: &Gateway, row: usize, coding: &str) {
    let usage = report_after(gateway, row, coding).await;
    let Row { what, tokens: (prompt, completion, total, cached), .. } = ROWS[row];
    let mut expected = json!({"prompt": prompt, "completion": completion, "total": total});
    if let Some(cached) = cached {
        expected["cached"] = cached.into();
    }
    let mut tokens = usage["tokens"].clone();
    tokens.as_object_mut().unwrap().remove("reasoning");
    assert_eq!(tokens, expected, "{what}, coding {coding}");
    assert!(usage["models"][0]["model"].is_string(), "{usage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_read_in_the_members_in_which_upstreams_report_them() {
    let upstream = Upstream::start(respond).await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    for row in 0..ROWS.len() {
        assert_reported(&gateway, row, "none").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_response_with_an_unrequested_coding_are_read() {
    let upstream = Upstream::start(respond).await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    for row in [2, 6, 7] {
        for coding in ["gzip", "deflate"] {
            assert_reported(&gateway, row, coding).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unsupported_content_coding_leaves_tokens_unknown() {
    let upstream = Upstream::start(respond).await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let usage = report_after(&gateway, 6, "br").await;
    assert_eq!(usage["tokens"]["total"], 0, "{usage}");
    assert_eq!(usage["requests"]["succeeded"], 1, "{usage}");
    assert_eq!(usage["requests"]["tokens_unknown"], 1, "{usage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_holder_and_operator_count_requests_without_tokens() {
    let upstream = Upstream::start(|_| {
        let mut response =
            Response::new(full("data: {\"model\":\"m\",\"choices\":[]}\n\ndata: [DONE]\n\n"));
        response.headers_mut().insert(header::CONTENT_TYPE, STREAM.parse().unwrap());
        response
    })
    .await;
    let mut gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({})).await;
    for _ in 0..3 {
        let url = gateway.url("/v1/chat/completions");
        Client::http1().post_as(&key, &url, &json!({"stream": true})).await;
    }
    for _ in 0..2 {
        let usage = gateway.usage(&key).await;
        assert_eq!(usage["requests"]["tokens_unknown"], 3, "{usage}");
        assert_eq!(usage["models"][0]["tokens_unknown"], 3, "{usage}");
        let report = gateway.admin(http::Method::GET, "/admin/usage", &Value::Null).await;
        assert_eq!(report["items"][0]["tokens_unknown"], 3, "{report}");
        gateway.restart();
    }
    let token = crate::common::ADMIN_TOKEN;
    let csv = Client::http1().get_as(token, &gateway.url("/admin/usage?format=csv")).await.text();
    assert!(csv.lines().next().unwrap().ends_with(",tokens_unknown"), "{csv}");
    assert!(csv.lines().nth(1).unwrap().ends_with(",3"), "{csv}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_names_many_models_has_a_row_for_64_a_day() {
    // The upstream echoes the requested model.
    let upstream = Upstream::start(|request| {
        let request: Value = serde_json::from_slice(request.body()).unwrap();
        crate::common::json_response(json!({"model": request["model"]}).to_string())
    })
    .await;
    let mut gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 0})).await;
    let client = Client::http1();
    for begin in [0, 50] {
        for number in begin..begin + 100 {
            let url = gateway.url("/v1/chat/completions");
            let question = json!({"model": format!("m{number}")});
            assert_eq!(client.post_as(&key, &url, &question).await.status, 200);
        }
        gateway.restart();
    }
    let path = "/admin/usage?group_by=key,day,model&limit=1000";
    let report = gateway.admin(http::Method::GET, path, &Value::Null).await;
    let items = report["items"].as_array().unwrap();
    assert_eq!((items.len(), &report["total_requests"]), (65, &json!(200)), "{report}");
    assert_eq!(items[0]["model"], "other");
}
