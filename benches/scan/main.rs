//! The cost of parsing tokens and models, compared with the same requests without parsing.
//! `cargo bench --bench scan`

#[path = "../common/stats.rs"]
#[allow(dead_code)]
mod stats;

use std::{
    collections::VecDeque,
    convert::Infallible,
    env,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use http::{Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tower::{Layer, Service, service_fn};
use tower_quota::{
    openai::OpenAiUsage,
    store::{UsageEvent, UsageSink},
    usage::{RequestBody, UsageRecorderLayer},
};

const ROUNDS: usize = 60;
const REQUESTS: usize = 2000;

/// The bodies of a request and its response, in frames.
struct Case {
    name: &'static str,
    request: Vec<Bytes>,
    content_type: &'static str,
    response: Vec<Bytes>,
}

/// A body whose frames are ready.
struct ReadyBody(VecDeque<Bytes>);

impl Body for ReadyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Clone)]
struct NullSink;

impl UsageSink for NullSink {
    fn record(&self, event: UsageEvent) {
        std::hint::black_box(event);
    }
}

/// Returns the nanoseconds per request. Bodies of another content type are not parsed.
fn time(case: &Case, parses_request: bool, parses_response: bool) -> f64 {
    let other = "application/octet-stream";
    let content_type = if parses_response { case.content_type } else { other };
    let inner = service_fn(|request: Request<RequestBody<ReadyBody>>| {
        let body = ReadyBody(case.response.clone().into());
        async move {
            request.into_body().collect().await?;
            let response = Response::builder().header(CONTENT_TYPE, content_type).body(body);
            Ok::<_, Infallible>(response.expect("a valid head"))
        }
    });
    let mut service =
        UsageRecorderLayer::new(NullSink).format(OpenAiUsage).watch_requests().layer(inner);
    let start = Instant::now();
    for _ in 0..REQUESTS {
        let content_type = if parses_request { "application/json" } else { other };
        let request = Request::post("/v1/chat/completions").header(CONTENT_TYPE, content_type);
        let request = request.body(ReadyBody(case.request.clone().into())).expect("a valid head");
        let call = async {
            let Ok(response) = service.call(request).await;
            response.into_body().collect().await
        };
        let Poll::Ready(Ok(_)) = pin!(call).poll(&mut Context::from_waker(Waker::noop())) else {
            unreachable!("all bodies are ready");
        };
    }
    start.elapsed().as_nanos() as f64 / REQUESTS as f64
}

fn cases() -> [Case; 5] {
    let prompt = |length: usize| {
        let text = "All work and no play makes Jack a dull boy.\\n".repeat(length / 45 + 1);
        let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}],"model":"m"}}"#);
        vec![Bytes::from(body)]
    };
    let model_first = || {
        let [prompt] = &prompt(100_000)[..] else { unreachable!("it is one frame") };
        let rest = str::from_utf8(&prompt[1..]).expect("JSON");
        vec![Bytes::from(format!(r#"{{"model":"m",{rest}"#))]
    };
    let json = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"deepseek-chat","choices":[{"index":0,"message":{"role":"assistant","content":"Something of medium length, which is what was requested, and a little more."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":24,"completion_tokens":17,"total_tokens":41,"prompt_tokens_details":{"cached_tokens":0},"prompt_cache_hit_tokens":0,"prompt_cache_miss_tokens":24},"system_fingerprint":"fp_0"}"#;
    let event = |number: usize| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"deepseek-chat\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"word {number} \"}},\"finish_reason\":null}}]}}\n\n"
        )
    };
    let last = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":24,\"completion_tokens\":20,\"total_tokens\":44}}\n\ndata: [DONE]\n\n";
    let stream = |events: usize| -> Vec<Bytes> {
        (0..events).map(|number| event(number).into()).chain([last.into()]).collect()
    };
    let case =
        |name, request, content_type, response| Case { name, request, content_type, response };
    let (is_json, is_stream) = ("application/json", "text/event-stream");
    [
        case("JSON of 0.5 KB", prompt(150), is_json, vec![json.into()]),
        case("a stream of 20 events", prompt(150), is_stream, stream(20)),
        case("a stream of 1,000 events", prompt(150), is_stream, stream(1000)),
        case("a prompt of 100 KB", prompt(100_000), is_json, vec![json.into()]),
        case("a prompt of 100 KB after its model", model_first(), is_json, vec![json.into()]),
    ]
}

fn main() {
    // `cargo test --all-targets` runs without --bench.
    if !env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured without --bench");
        return;
    }
    println!("| | nothing parsed, ns | request parsed | response parsed |\n|---|--:|--:|--:|");
    for case in cases() {
        let (mut bases, mut requests, mut responses) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let base = time(&case, false, false);
            requests.push(time(&case, true, false) - base);
            responses.push(time(&case, false, true) - base);
            bases.push(base);
        }
        let [base, request, response] =
            [&mut bases, &mut requests, &mut responses].map(|values| stats::median(values));
        println!("| {} | {base:.0} | {request:+.0} | {response:+.0} |", case.name);
    }
}
